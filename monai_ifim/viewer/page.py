"""The viewer's page: widgets and texts. Their actions are in `app`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v
from trame_slicer.core import LayoutManager

from monai_ifim.display.vocabulary import BY_COMPONENT, COMPONENT, HIGH, ONE_NAT, SENSITIVITY_MAP

KEYS = """
if (!window.ifimKeys) {
  window.ifimKeys = true;
  const actions = {
    ArrowLeft: ['case', -1], ArrowRight: ['case', 1], ArrowUp: ['slice', 1], ArrowDown: ['slice', -1],
    ' ': ['overlay', 0], r: ['fit', 0], c: ['crosshair', 0],
  };
  window.addEventListener('keydown', (event) => {
    if (!window.trame || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest('input, textarea, button, [role=slider], [role=combobox], .v-overlay__content')) return;
    const action = actions[event.key];
    if (!action || (event.key.length === 1 && window.trame.state.get('keys_on') === false)) return;
    event.preventDefault();
    event.stopPropagation();
    window.trame.trigger('viewer_key', action);
  }, true);
  document.addEventListener('pointerover', (event) => {  // over the pictures, keys control the pictures
    if (event.target.closest('.ifim-views') && document.activeElement) document.activeElement.blur();
  });
}
"""

STYLE = """
html { overflow: hidden; }
.ifim-panel { font-size: 0.875rem; }
.ifim-panel h2 { font-size: 0.8125rem; font-weight: 600; letter-spacing: 0.02em; margin: 0 0 6px; }
.ifim-panel section { padding: 12px 16px; border-bottom: 1px solid rgba(var(--v-border-color), var(--v-border-opacity)); }
.ifim-panel table { width: 100%; border-collapse: collapse; }
.ifim-panel th { text-align: left; font-weight: 400; opacity: 0.75; vertical-align: top; padding: 1px 8px 1px 0; }
.ifim-panel th { white-space: nowrap; }
.ifim-panel td { text-align: right; vertical-align: top; padding: 1px 0; overflow-wrap: anywhere; }
.ifim-panel td { font-variant-numeric: tabular-nums; }
.ifim-panel td.ifim-bar { width: 38%; padding-left: 8px; vertical-align: middle; }
.ifim-bar div { height: 8px; border-radius: 2px; background: rgb(var(--v-theme-primary)); min-width: 1px; }
.ifim-quiet { opacity: 0.75; }
.ifim-scale { height: 12px; border-radius: 2px; border: 1px solid rgba(128, 128, 128, 0.6); }
.ifim-ends { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; font-size: 0.8125rem; }
.ifim-mark { position: absolute; color: #fff; text-shadow: 0 0 3px #000, 0 0 3px #000, 0 0 3px #000; }
.ifim-mark { pointer-events: none; user-select: none; white-space: pre; }
.ifim-readings { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ifim-readings td { padding: 0 24px 0 0; line-height: 18px; }
.ifim-letter { font-weight: 600; font-size: 1rem; }
.ifim-windows { gap: 4px; }
.ifim-panel ul { padding-left: 18px; margin: 4px 0 0; }
.ifim-panel kbd { font: inherit; font-size: 0.75rem; border: 1px solid rgba(128, 128, 128, 0.6); border-radius: 3px; }
.ifim-panel kbd { padding: 0 4px; }
"""

LAYOUTS = (
    ("three", "Axial, coronal and sagittal", "mdi-view-split-vertical"),
    ("four", "Three planes and a 3D view of them", "mdi-view-grid-outline"),
    ("axial", "Axial alone", "mdi-alpha-a-box-outline"),
    ("coronal", "Coronal alone", "mdi-alpha-c-box-outline"),
    ("sagittal", "Sagittal alone", "mdi-alpha-s-box-outline"),
)

READING = (
    (
        SENSITIVITY_MAP.title,
        "bright means that small changes there move the network's answer; where it is transparent, they hardly do.",
    ),
    (
        HIGH.title,
        "the part of this image that lies in the few directions in which small changes move the answer most. Red adds to the "
        "image, blue subtracts from it. The insensitive part is the rest of the image; very small "
        "changes of it hardly move the answer, larger ones can.",
    ),
    (COMPONENT.title, "one pattern of change: red voxels brighter and blue ones darker, together, make the answer more certain."),
    (BY_COMPONENT.title, "how much of the sensitivity each component holds."),
    (
        "What they are not",
        "no segmentation, no map of disease, no proof of what caused the answer. They describe the network, not the patient, "
        "and small changes of this image only.",
    ),
)
MOUSE = (
    ("click", "all views go to that point"),
    ("drag", "brightness and contrast"),
    ("wheel", "next slice"),
    ("Ctrl + wheel", "zoom (or right button)"),
    ("Shift + drag", "move the picture (or middle button)"),
    ("← →", "previous, next case"),
    ("↑ ↓", "slices of the view under the pointer"),
    ("space", "overlay on and off"),
    ("R", "fit the views"),
    ("C", "crosshair on and off"),
)


# HTML attributes that trame does not know.
SPOKEN: dict[str, Any] = {"__properties": ["title", "role", ("aria_label", "aria-label")]}


class Actions(Protocol):
    """Actions of the application that the page calls."""

    def step_case(self, step: int) -> None:
        """Next or previous case."""

    def fit(self) -> None:
        """Fit the views."""

    def reset_windows(self) -> None:
        """Restore the windows of the sidecar."""

    def choose_window(self, name: str) -> None:
        """Show the background in a window of this name."""


def build_page(server: Any, layouts: LayoutManager, actions: Actions) -> None:
    """Build the page's template; its changing parts are bound to the server's state."""
    with VAppLayout(server) as layout:
        layout.root.theme = ("theme",)
        client.Style(STYLE)
        client.Script(KEYS)
        prefers_dark = "window.matchMedia('(prefers-color-scheme: dark)').matches"
        client.ClientTriggers(mounted=f"theme = {prefers_dark} ? 'dark' : 'light'")
        with v.VAppBar(density="compact", flat=True, border="b"):
            _bar(actions)
        with v.VNavigationDrawer(v_model=("panel_shown",), location="right", width=340, permanent=("panel_shown",)):
            _panel(actions)
        with (
            v.VMain(),
            html.Div(style="height: calc(100vh - 48px - 48px); background: #000; position: relative;", classes="ifim-views"),
        ):
            layouts.initialize_layout_grid(layout)
            v.VAlert(v_if=("problem",), text=("problem",), type="error", style="position: absolute; inset: 16px 16px auto;")
            v.VOverlay(
                "{{ loading }}", model_value=("!!loading",), contained=True, persistent=True,
                classes="align-center justify-center text-white"
            )  # fmt: skip
        with v.VFooter(app=True, height=48, border="t", classes="px-3 text-caption"):
            _readout()


def _bar(actions: Actions) -> None:
    html.Div("monai-ifim", classes="ml-4 mr-4 font-weight-medium")
    _button("mdi-chevron-left", "Previous case (left arrow)", lambda: actions.step_case(-1), disabled=("case_number <= 1",))
    v.VAutocomplete(
        v_model=("case_name",), items=("case_names",), aria_label="Case", **SPOKEN, density="compact", variant="outlined",
        hide_details=True, auto_select_first=True, style="max-width: 340px;", classes="ifim-case"
    )  # fmt: skip
    _button(
        "mdi-chevron-right",
        "Next case (right arrow)",
        lambda: actions.step_case(1),
        disabled=("case_number >= case_names.length",),
    )
    html.Span("{{ case_number }} of {{ case_names.length }}", classes="text-caption ml-2 ifim-quiet")
    v.VSpacer()
    with v.VBtnToggle(v_model=("layout_name",), mandatory=True, density="compact", variant="text", v_show=("!is_flat",)):
        for name, words, icon in LAYOUTS:
            with v.VBtn(value=name, size="small", min_width=40, classes="px-0", aria_label=words, title=words, **SPOKEN):
                v.VIcon(icon)
    _button("mdi-crosshairs", "Crosshair (C)", "crosshair_shown = !crosshair_shown", active=("crosshair_shown",))
    _button("mdi-fit-to-screen-outline", "Fit the views (R)", actions.fit)
    _button("mdi-theme-light-dark", "Light or dark", "theme = theme === 'dark' ? 'light' : 'dark'")
    _button("mdi-dock-right", "Side panel", "panel_shown = !panel_shown")


def _button(icon: str, words: str, click: Callable[[], None] | str, **more: Any) -> None:
    with v.VBtn(icon=True, size="small", click=click, aria_label=words, title=words, **SPOKEN, **more):
        v.VIcon(icon)


def _panel(actions: Actions) -> None:
    with html.Div(classes="ifim-panel"):
        with html.Section():
            html.H2("Answer")
            with html.Div(v_if=("answer",), classes="text-h6"):
                html.Span("{{ answer }}")
            html.P("{{ saturated }}", v_if=("saturated",), classes="ifim-saturated font-weight-medium")
            with html.Table(aria_label="Answers", **SPOKEN), html.Tr(v_for=("row in answers",), key=("row.name",)):
                html.Th("{{ row.name }}")
                with html.Td(classes="ifim-bar"):
                    html.Div(style=("'width: ' + row.bar + '%'",))
                html.Td("{{ row.text }}")
            html.Div("and {{ answers_left }} more in the sidecar", v_if=("answers_left",), classes="ifim-quiet text-caption")
        with html.Section():
            _layers(actions)
        with html.Section(v_if=("spectrum.length",)):
            html.H2(BY_COMPONENT.title, title=BY_COMPONENT.tip, **SPOKEN)
            with html.Table(aria_label=BY_COMPONENT.title, **SPOKEN), html.Tr(v_for=("row in spectrum",), key=("row.name",)):
                html.Th("{{ row.name }}")
                with html.Td(classes="ifim-bar"):
                    html.Div(style=("'width: ' + row.bar + '%'",))
                html.Td("{{ row.text }}")
                html.Td("{{ row.share }}")
            html.Div("and {{ spectrum_left }} more in the sidecar", v_if=("spectrum_left",), classes="ifim-quiet text-caption")
            html.Div("of each component, in {{ spectrum_unit }}, and its share", classes="ifim-quiet text-caption")
            html.Div(f"{ONE_NAT}.", classes="ifim-quiet text-caption ifim-nat")
        with html.Section():
            html.H2("Reading the pictures")
            with html.Ul():
                for name, words in READING:
                    html.Li(f"<b>{name}</b>: {words}")
        with html.Section():
            html.H2("Mouse and keys")
            with html.Table():
                for keys, words in MOUSE:
                    with html.Tr():
                        with html.Th():
                            html.Kbd(keys)
                        html.Td(words, style="text-align: left;")
            v.VSwitch(
                v_model=("keys_on",), label="Keys of one character: space, R, C", density="compact", hide_details=True,
                color="primary", classes="ifim-keys"
            )  # fmt: skip
        with html.Section():
            html.H2("How it was made")
            with html.Table(aria_label="Settings", **SPOKEN), html.Tr(v_for=("row in settings",), key=("row.name",)):
                html.Th("{{ row.name }}")
                html.Td("{{ row.text }}")


def _layers(actions: Actions) -> None:
    html.H2("Pictures")
    plain = {"density": "compact", "variant": "outlined", "hide_details": True}
    v.VSelect(
        v_model=("background_name",), items=("background_names",), label="Background", classes="mt-2 ifim-background", **plain
    )
    _scale("background")
    with html.Div(v_if=("window_names.length",), classes="d-flex flex-wrap mt-1 ifim-windows"):
        click = (actions.choose_window, "[name]")
        v.VBtn("{{ name }}", v_for=("name in window_names",), key=("name",), click=click, size="x-small", variant="tonal")
    v.VSelect(v_model=("overlay_name",), items=("overlay_names",), label="Overlay", classes="mt-4 ifim-overlay", **plain)
    with html.Div(v_if=("overlay_name !== 'none'",)):
        _scale("overlay")
        _slider("Opacity", "opacity", 0, 1, 0.05)
        _slider("Transparent below", "clear_share", 0, 0.9, 0.02, v_if=("overlay_scale.can_be_clear",))
        with html.Div(classes="d-flex align-center mt-1"):
            html.Span("Drag on", classes="mr-2 ifim-quiet")
            with v.VBtnToggle(v_model=("dragged",), mandatory=True, density="compact", variant="outlined", style="height: 28px;"):
                v.VBtn("background", value="background", size="small")
                v.VBtn("overlay", value="overlay", size="small")
    v.VBtn("Reset brightness", click=actions.reset_windows, size="small", variant="text", classes="mt-1 px-1")


def _scale(which: str) -> None:
    """A colour bar with its ends and unit."""
    with html.Div(
        classes="mt-2",
        role="img",
        aria_label=(f"'Colour bar from ' + {which}_scale.low + ' to ' + {which}_scale.high",),
        **SPOKEN,
    ):
        html.Div(
            classes="ifim-scale", style=(f"'background: ' + {which}_scale.gradient + '; clip-path: ' + {which}_scale.shape",)
        )
        with html.Div(classes="ifim-ends"):
            html.Span(f"{{{{ {which}_scale.low }}}}")
            html.Span(f"{{{{ {which}_scale.unit }}}}", classes="ifim-quiet")
            html.Span(f"{{{{ {which}_scale.high }}}}")


def _slider(label: str, name: str, low: float, high: float, step: float, **more: Any) -> None:
    with html.Div(classes="d-flex align-center mt-1", **more):
        html.Span(label, style="width: 96px;", classes="ifim-quiet")
        v.VSlider(
            v_model=(name,),
            min=low,
            max=high,
            step=step,
            hide_details=True,
            density="compact",
            color="primary",
            aria_label=label,
            **SPOKEN,
        )
        html.Span(f"{{{{ Math.round(100 * {name}) }}}} %", style="width: 48px; text-align: right;")


def _readout() -> None:
    """Place and values at the crosshair and at the pointer."""
    with html.Table(classes="ifim-readings"):
        for name, words in (("cross", "Crosshair"), ("pointer", "Pointer")):
            with html.Tr(classes=f"ifim-{name}"):
                html.Td(words, classes="ifim-quiet")
                for part in ("place", "background", "overlay"):
                    html.Td(f"{{{{ {name}.{part} }}}}")


def view_frame(view_id: str, slider: dict[str, Any]) -> None:
    """Texts and controls over one slice view: name and depth, edge letters, slider.

    slider: names of the state variables of value, min, max and step.
    """
    name = f"frame_{view_id}"
    html.Div(f"{{{{ {name}.title }}}}", classes="ifim-mark ifim-title", style="left: 10px; top: 6px;")
    for side, place in (
        ("left", "left: 8px; top: 50%;"), ("right", "right: 8px; top: 50%;"),
        ("top", "top: 6px; left: 50%;"), ("bottom", "bottom: 34px; left: 50%;"),
    ):  # fmt: skip
        html.Div(f"{{{{ {name}.{side} }}}}", classes=f"ifim-mark ifim-letter ifim-{side}", style=place)
    with html.Div(v_show=(f"{name}.slices > 1",), style="position: absolute; left: 8px; right: 8px; bottom: 0;"):
        v.VSlider(
            **slider, hide_details=True, density="compact", theme="dark", color="white", thumb_size=12, track_size=2,
            aria_label=(f"{name}.title",), **SPOKEN, classes="ifim-slider"
        )  # fmt: skip
