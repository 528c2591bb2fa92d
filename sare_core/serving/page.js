// The form without a new page: progress by stage, a preview, files that are dropped or pasted.
"use strict";

const at = (id) => document.getElementById(id);
const title = document.title;
const form = at("form"), input = at("image"), submit = form.querySelector("[type=submit]");
let running = null;

for (const each of document.querySelectorAll(".scripted")) each.hidden = false;

function say(text) {
  at("told").textContent = text;
}

function preview() {
  URL.revokeObjectURL(at("preview").src);
  const [file] = input.files;
  at("preview").hidden = !file;
  if (file) at("preview").src = URL.createObjectURL(file);
}

function enter(stage) {
  let before = true;
  for (const item of at("stages").children) {
    const now = item.dataset.stage === stage;
    before &&= !now;
    item.classList.toggle("done", before);
    if (now) {
      item.setAttribute("aria-current", "step");
      say(item.textContent + " …");
    } else item.removeAttribute("aria-current");
  }
}

function show(part, html) {
  at(part).innerHTML = html;
  at(part).hidden = !html;
}

// What was found of one image must not stand beside another.
function clear() {
  show("verdict", "");
  show("evidence", "");
  say("");
  document.title = title;
}

// Lines of JSON, as they come.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

async function examine() {
  const answer = await fetch("/", {
    method: "POST",
    body: new FormData(form),
    headers: { Accept: "application/x-ndjson" },
    signal: running.signal,
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  for await (const event of events(answer.body)) {
    if (event.error) throw new Error(event.error);
    if (event.stage) enter(event.stage);
    if (event.said) return event;
  }
  throw new Error("The server broke off. Try again.");
}

async function start() {
  running = new AbortController();
  submit.disabled = true;
  at("cancel").hidden = at("stages").hidden = false;
  clear();
  enter(null);
  say("Sending the image …");
  try {
    const found = await examine();
    show("verdict", found.verdict);
    show("evidence", found.evidence);
    document.title = found.said + " – sare";
    say("Examined: " + found.said + ".");
    const heading = at("verdict").querySelector("h2");
    heading.scrollIntoView();
    heading.focus({ preventScroll: true });
  } catch (error) {
    const sent = error instanceof TypeError ? "The server cannot be reached. Try again." : error.message;
    say(error.name === "AbortError" ? "Cancelled." : sent);
  } finally {
    running = null;
    submit.disabled = false;
    at("cancel").hidden = at("stages").hidden = true;
  }
}

function take(files) {
  if (running || !files.length) return;
  const one = new DataTransfer();
  one.items.add(files[0]);
  input.files = one.files;
  preview();
  start();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) start();
});
input.addEventListener("change", () => {
  running?.abort();
  clear();
  preview();
});
at("cancel").addEventListener("click", () => running?.abort());
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
document.addEventListener("dragleave", () => form.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  take(event.dataTransfer.files);
});
