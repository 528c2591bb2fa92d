"""What lies in a work folder and what it was made from, as a tree: `sare ls`."""

from rich.tree import Tree

from sare_core.engine.folders import Folder


def artifact_tree(title: str, folders: list[Folder]) -> Tree:
    """One line a folder, under the one that it is made from; of several, under the first, and the others are named."""
    tree, nodes = Tree(title, hide_root=False), dict[str, Tree]()
    for folder in folders:  # in the order of the stages, so that what it is made from has its line already
        first, *more = [before.store.url for before in folder.upstream.values()] or [""]
        parent = nodes.get(first, tree)
        nodes[folder.store.url] = parent.add(_line(folder, more))
    return tree


def _line(folder: Folder, more: list[str]) -> str:
    about, made_by, settings = folder.about(), folder.made_by, folder.settings or {}
    kind = {"captions": "caption.captioner", "reconstructions": "reconstruct.method", "detectors": "detector.detector"}
    section, _, key = kind.get(folder.stage, "").partition(".")
    words = [f"{folder.stage} {folder.fingerprint}", str(settings.get(section, {}).get(key, ""))]
    words += [] if folder.stage == "predictions" else [folder.models.get("model") or ", ".join(folder.models.values())]
    view = made_by.get("view") or next((f.made_by.get("view", "") for f in folder.upstream.values()), "")
    words += [f"view {view}" if view not in ("", "raw") else ""]
    words += [f"of {folder.dataset}" if folder.stage == "predictions" else ""]
    words += [f"with {about.detector}" if folder.stage == "predictions" and about.detector else ""]
    words += [f"also from {', '.join(each.rpartition('/')[2] for each in more)}" if more else ""]
    words += [f"run {', '.join(about.names())}", about.described]
    return " · ".join(word for word in words if word)
