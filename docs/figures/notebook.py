"""The figure of `Decomposition.view`: its widget in Chromium, without a Jupyter server.

A small page stands in for Jupyter: it hands NiiVue's own module the states of the widgets, and the messages that the kernel sends
once the picture has a place.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from docs.figures.browser import chromium, photograph
from docs.figures.catalogue import MissingProgramError

SIZE = (900, 560)  # pixels
PATIENCE, DRAWN = 60.0, 2.0  # seconds until NiiVue has loaded; until it has drawn
PAGE = Template(
    """<!doctype html><meta charset="utf-8"><style>body { font: 14px sans-serif; margin: 12px }</style>
<div>$above</div><div id="place"></div><div>$below</div>
<script type="module">
const { default: widget } = await import("data:text/javascript;base64,$module");
const states = $states, messages = $messages, listeners = {}, sent = (window.sent = []);
const decoded = (key, value) => value?.base64 === undefined ? value :
  new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer);
const model = (id) => ({
  get: (name) => states[id][name], set: (name, value) => { states[id][name] = value },
  off() {}, save_changes() {}, send: (message) => sent.push(message),
  on: (name, call) => { (listeners[id + name] ??= []).push(call) },
  widget_manager: { get_model: async (other) => model(other.replace("IPY_MODEL_", "")) },
});
for (const id in states) for (const name in states[id]) states[id][name] = decoded(name, states[id][name]);
const canvas = model("$canvas");
await widget.initialize({ model: canvas });
await widget.render({ model: canvas, el: document.getElementById("place") });
for (const message of messages) for (const call of listeners["$canvas" + "msg:custom"]) await call(message, []);
document.title = "drawn";
</script>"""
)


def draw_figures(demo: Path, output: Path) -> None:
    """Decompose the volume of the demo's second bundle as docs/notebook.md does, and write the figure."""
    if find_spec("ipyniivue") is None:
        raise MissingProgramError("ipyniivue is not installed")
    from monai_ifim import decompose
    from monai_ifim.adapt.bundle import load_bundle
    from monai_ifim.evaluation.demonstration import demo_volume
    from monai_ifim.io.installation import resolve_bundle

    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    volume = bundle.preprocess(demo_volume(output))
    d = decompose(bundle.network, volume[None])
    view = d.view(affine=volume.affine.numpy(), class_names=bundle.identity.class_names)
    photograph_view(view, output, output / "notebook-view.png")


def photograph_view(view: Any, folder: Path, target: Path) -> None:
    """Write what the widget of `Decomposition.view` draws as PNG; folder: for the page."""
    with opened_view(view, folder) as driver:
        photograph(driver, target)


@contextmanager
def opened_view(view: Any, folder: Path) -> Iterator[Any]:
    """A driver whose window shows the widget; the messages to the kernel are in `window.sent`. folder: for the page."""
    import ipyniivue

    module = (Path(ipyniivue.__file__).parent / "static" / "widget.js").read_bytes()
    above, canvas, below = view.children[:3]
    page = PAGE.substitute(
        above=above.value,
        below=below.value,
        canvas=canvas.model_id,
        messages=json.dumps(_messages(canvas)),
        module=base64.b64encode(module).decode(),
        states=json.dumps({each.model_id: _plain(each.get_state()) for each in (canvas, *canvas.volumes)}),
    )
    written = folder / "view.html"
    written.write_text(page, encoding="utf-8")
    with chromium(*SIZE) as driver:
        driver.get(written.as_uri())
        end = time.monotonic() + PATIENCE
        while driver.title != "drawn":
            if time.monotonic() > end:
                raise RuntimeError(f"NiiVue did not draw: {driver.get_log('browser')}")
            time.sleep(0.2)
        time.sleep(DRAWN)
        yield driver


def _messages(canvas: Any) -> list[Any]:
    """What the kernel sends once the picture has a place."""
    sent: list[Any] = []
    canvas.send = sent.append
    canvas.set_trait("_canvas_attached", True)
    return sent


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A widget's state for JSON; bytes in base64. NiiVue's module stands in the page already."""
    kept = {name: value for name, value in state.items() if name not in ("_esm", "_css")}
    return json.loads(json.dumps(kept, default=_encoded))  # type: ignore[no-any-return]


def _encoded(value: Any) -> dict[str, str]:
    return {"base64": base64.b64encode(bytes(value)).decode()}
