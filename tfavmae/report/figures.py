"""Charts as inline SVG that follows the page's light or dark colours."""

import contextlib
import hashlib
import io
import re

# Drawn in these, which occur nowhere else; the page's CSS variables replace them.
COLORS = {
    name: f"#0{i:x}0{i:x}0{i:x}"
    for i, name in enumerate(
        ["ink", "muted", "line", "audio", "video", "audio_video", "card"], start=1
    )
}
LABELS = {"audio": "audio", "video": "video", "audio_video": "audio + video"}

_STYLE = {
    "svg.fonttype": "none",
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
def new_axes(width: float = 4.6, height: float = 2.7):
    """Axes of a figure that never touches pyplot; sizes in inches.

    Style is looked up while drawing and while saving: call `to_svg` inside.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained").add_subplot()


def to_svg(axes, description: str) -> str:
    """The figure of `axes` as an `<svg>` element for inlining into HTML.

    Args:
        axes: from `new_axes`.
        description: what it shows, for those who can't see it.
    """
    from html import escape

    buffer = io.StringIO()
    axes.figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'font-family: [^;"]*;? ?', "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg).group()
    label = escape(description, quote=True)
    head = f'<svg class="chart" {view_box} role="img" aria-label="{label}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name.replace('_', '-')})")
    return _with_unique_ids(svg)


def _with_unique_ids(svg):
    """Ids are shared by all SVGs of a page; clip paths must not be mixed up."""
    prefix = f"f{hashlib.sha1(svg.encode()).hexdigest()[:8]}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    return svg.replace('href="#', f'href="#{prefix}')
