"""Charts as inline SVG that follows the page's light or dark colours."""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup, escape

# Charts are drawn in these, which occur nowhere else; `to_svg` replaces them by the
# page's CSS variables of the same names.
COLORS = {
    name: f"#0{i:x}0{i:x}0{i:x}"
    for i, name in enumerate(
        ["ink", "muted", "line", "audio", "video", "audio_video", "card"], start=1
    )
}
LABELS = {"audio": "audio", "video": "video", "audio_video": "audio + video"}

_STYLE: dict[Any, Any] = {
    # Text stays text: it can be searched, and takes the font of the page.
    "svg.fonttype": "none",
    # Otherwise ids are random, and the same chart differs from run to run.
    "svg.hashsalt": "tfavmae",
    "font.size": 9.5,
    "text.color": COLORS["ink"],
    "axes.edgecolor": COLORS["line"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@contextlib.contextmanager
def new_axes(width: float = 4.6, height: float = 2.7) -> Iterator[Any]:
    """Axes of a new figure, styled for the page; sizes in inches.

    The style is read while drawing and while saving: call `to_svg` inside the block.
    """
    import matplotlib

    # Not `pyplot`: it would keep every figure and may look for a display.
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained").add_subplot()


def to_svg(axes: Any, description: str) -> Markup:
    """The figure of `axes` as an `<svg>` element for inlining into HTML.

    Args:
        axes: from `new_axes`.
        description: alternative text, for readers who cannot see the chart.
    """
    buffer = io.StringIO()
    axes.figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Fonts come from the page. Matplotlib writes them in a long and a short form.
    svg = re.sub(r'font-family: [^;"]*;? ?', "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    view_box = re.findall(r'viewBox="[^"]*"', svg)[0]
    label = escape(description)
    head = f'<svg class="chart" {view_box} role="img" aria-label="{label}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name.replace('_', '-')})")
    # All charts share the ids of the page: without a prefix of its own, one would be
    # clipped by the path of another.
    prefix = f"f{hashlib.sha1(svg.encode()).hexdigest()[:8]}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    return Markup(svg.replace('href="#', f'href="#{prefix}'))
