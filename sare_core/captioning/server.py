"""Captions by a server that speaks OpenAI's chat completions, such as vLLM or SGLang: any vision-language model.

Each image is one request, as a lossless PNG; caption.batch_size of them are under way at a time. Where the server is,
and how long it may take, is no part of the captions' fingerprint; the model's name and the question are.
"""

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError, ImageError, TransientError, needs_extra
from sare_core.images.png import encode_png

TRIES = 4  # of a request: openai waits 0.5 s, then twice as long each time, up to 8 s
KEY = "OPENAI_API_KEY"


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> "Server":
    """Raises ConfigError: a setting is missing, the server does not answer, or it does not have the model."""
    wanted = {
        "server": "the address, for example http://localhost:8000/v1",
        "server_model": "the model's name there, for example Qwen/Qwen3-VL-4B-Instruct",
        "prompt": "the question, for example 'Describe this image in one short sentence.'",
    }
    if missing := [f"caption.{name}, {what}" for name, what in wanted.items() if not getattr(settings, name)]:
        raise ConfigError(f"captioner server needs {'; '.join(missing)}.")
    if not str(settings.server).startswith(("http://", "https://")):
        raise ConfigError(f"caption.server={settings.server}: begins with neither http:// nor https://.")
    if settings.num_beams != 1:
        raise ConfigError("caption.num_beams: captioner server asks for greedy decoding; set it to 1.")
    return Server(settings)


class Server:
    """Asks for one caption an image, greedily (temperature 0)."""

    name, revision = "server", None

    def __init__(self, settings: CaptionSettings) -> None:
        with needs_extra("server"):
            import openai
        self.settings, self.openai = settings, openai
        key = os.environ.get(KEY) or "none"  # a server of one's own asks for none, the client for any
        timeout, tries = settings.server_timeout, TRIES - 1
        self.client = openai.OpenAI(base_url=settings.server, api_key=key, timeout=timeout, max_retries=tries)
        self._require_model()
        self.requests = ThreadPoolExecutor(settings.batch_size)

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | ImageError | None]:
        """See Captioner. Raises TransientError: the server is away; ConfigError: it refuses every request."""
        return list(self.requests.map(self._ask, images))

    def _ask(self, image: Image.Image) -> str | ImageError:
        openai, settings = self.openai, self.settings
        picture = "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()
        content: Any = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": settings.prompt},
        ]
        try:
            answer = self.client.chat.completions.create(
                model=str(settings.server_model),
                messages=[{"role": "user", "content": content}],
                max_tokens=settings.max_new_tokens,
                temperature=0,
                seed=0,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self._refused(error) from error
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as error:
            raise TransientError(
                f"{settings.server}: no answer after {TRIES} tries ({_first_line(error)}). See to the server, or raise "
                "caption.server_timeout; then run the same command again."
            ) from error
        except openai.APIStatusError as error:  # it does not like this request
            return ImageError(f"the server refuses it ({_first_line(error)})")
        except (openai.APIError, ValueError) as error:
            return ImageError(f"the server's answer cannot be read ({_first_line(error)})")
        try:
            said = answer.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            return ImageError("the server's answer holds no message")
        return said.strip() if isinstance(said, str) else ImageError("the server's answer holds no text")

    def _require_model(self) -> None:
        """Before a shard is begun. A server that lists no models is taken at its word."""
        openai, settings = self.openai, self.settings
        try:
            names = [model.id for model in self.client.models.list().data]
        except openai.APIConnectionError as error:
            raise ConfigError(f"caption.server={settings.server}: does not answer ({_first_line(error)}).") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused(error) from error
        except (openai.APIError, ValueError, AttributeError, TypeError):
            return
        if names and settings.server_model not in names:
            raise ConfigError(
                f"caption.server_model={settings.server_model}: {settings.server} has {', '.join(sorted(names)[:5])}."
            )

    def _refused(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"caption.server={self.settings.server}: refuses ({_first_line(error)}). Set {KEY} if it wants a key, and "
            "see caption.server_model."
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
