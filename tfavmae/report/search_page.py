"""The page of `tfavmae search --serve`: drop a clip, hear and see what is found."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from tfavmae.errors import UserError
from tfavmae.models.text_aligned import TextAlignedModel
from tfavmae.report import clip_files
from tfavmae.report.found_clips import FRAME_RATE, clips_at
from tfavmae.tasks import search
from tfavmae.tasks.search import Hit
from tfavmae.tasks.trained import Trained
from tfavmae.tasks.vector_store import VectorStore

_HOST = "127.0.0.1"
_SAME = "the same"
# Fonts of the machine: the page asks nothing of anyone else.
_FONT, _MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
_CSS = """
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.hit p { overflow-wrap: anywhere; }
footer { display: none !important; }
"""


def serve(store: VectorStore, trained: Trained, port: int, top: int) -> None:
    """Answers on this machine until Ctrl-C.

    Args:
        store: the index.
        trained: its model.
        port: to listen on.
        top: results of a search.

    Raises:
        UserError: the port is taken.
    """
    with opened(store, trained, port, top) as (page, address):
        print(f"search at {address}; Ctrl-C ends it", flush=True)
        page.block_thread()


@contextlib.contextmanager
def opened(
    store: VectorStore, trained: Trained, port: int, top: int
) -> Iterator[tuple[Any, str]]:
    """Answers on this machine while the block runs.

    Args:
        store, trained, port, top: as of `serve`.

    Yields:
        The page of gradio, and its address.
    """
    # Read when gradio is imported, which would otherwise report its use.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    with tempfile.TemporaryDirectory(prefix="tfavmae-search-") as folder:
        searcher = _Searcher(store, trained, top, pathlib.Path(folder))
        page = _page(searcher)
        theme = gr.themes.Default(font=_FONT, font_mono=_MONO)
        try:
            _, address, _ = page.launch(
                server_name=_HOST,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                theme=theme,
                css=_CSS,
                footer_links=[],
            )
        except OSError as error:
            raise UserError(
                f"port {port} of {_HOST} is taken; choose another one with --port"
            ) from error
        try:
            yield page, address
        finally:
            page.close(verbose=False)


@dataclasses.dataclass
class _Searcher:
    """What the page asks for.

    Args:
        store, trained, top: as of `serve`.
        folder: for the clips that it plays.
    """

    store: VectorStore
    trained: Trained
    top: int
    folder: pathlib.Path

    @property
    def knows_words(self) -> bool:
        """Whether one can search with words."""
        return isinstance(self.trained.run.model, TextAlignedModel)

    @property
    def invitation(self) -> str:
        """What to do first."""
        return f"Drop a file{', or type words' if self.knows_words else ''}."

    def by_query(
        self, file: str | None, words: str, by: str, among: str
    ) -> tuple[str, list[dict[str, Any]]]:
        """Searches with a file, or else with words: what to say, and the hits."""
        asked = file or words.strip()
        if not asked:
            return self.invitation, []
        return self._answer(lambda: search.query_vector(self.trained, asked), by, among)

    def by_hit(
        self, hit: dict[str, Any], by: str, among: str
    ) -> tuple[str, list[dict[str, Any]]]:
        """Searches with what another search has found."""
        one = Hit(**{**hit, "also": tuple(hit["also"])})
        return self._answer(lambda: search.query_of_hit(self.store, one), by, among)

    def _answer(
        self, make_query: Any, by: str, among: str
    ) -> tuple[str, list[dict[str, Any]]]:
        try:
            self.store.refresh()
            query = make_query()
            chosen = None if by == "all" else by
            target = None if among == _SAME else among
            hits, by, among = search.find(self.store, query, chosen, target, self.top)
        except UserError as error:
            return str(error), []
        name = os.path.basename(query.name)
        found = f"{len(hits)} place{'' if len(hits) == 1 else 's'}"
        said = f"**{found}**: their {among} beside the {by} of *{name}*"
        return said, [dataclasses.asdict(hit) for hit in hits]

    def media_of(self, hits: list[dict[str, Any]]) -> list[str | None]:
        """A file that plays each hit; None where there is nothing to play."""
        places = [(h["file"], h["start_seconds"], h["end_seconds"]) for h in hits]
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        return [
            None
            if clip.video is None and clip.audio is None
            else str(clip_files.write(folder, str(number), clip, FRAME_RATE))
            for number, clip in enumerate(clips_at(places))
        ]


def _page(searcher: _Searcher) -> Any:
    import gradio as gr

    store = searcher.store
    count, files = store.num_windows(), len(store.files())
    with gr.Blocks(title="Search in your files", fill_width=True) as page:
        gr.Markdown(
            f"# Search in your files\n{count:,} windows of {files:,} files in "
            f"`{store.address}`"
        )
        hits = gr.State([])
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(
                    label="A clip, a sound or a picture",
                    file_types=["video", "audio", "image"],
                    type="filepath",
                    height=140,
                )
                words = gr.Textbox(
                    label="or words", max_lines=1, visible=searcher.knows_words
                )
                text = ["text"] if searcher.knows_words else []
                by = gr.Radio(
                    ["all", "audio", "video", "both", *text],
                    value="all",
                    label="Compare of it",
                )
                among = gr.Radio(
                    [_SAME, "audio", "video", "both"],
                    value=_SAME,
                    label="with, of the files",
                )
                button = gr.Button("Search", variant="primary")
            with gr.Column(scale=3, min_width=280):
                said = gr.Markdown(searcher.invitation, elem_id="said")

                @gr.render(inputs=hits)
                def show(found: list[dict[str, Any]]) -> None:
                    with gr.Row(elem_classes="hits"):
                        playable = searcher.media_of(found)
                        for hit, path in zip(found, playable, strict=True):
                            _show_hit(searcher, hit, path, (by, among), (said, hits))

        asked = [file, words, by, among]
        button.click(searcher.by_query, asked, [said, hits], api_name="search")
        # A file that was dropped before stays where it is.
        words.submit(
            lambda words, by, among: searcher.by_query(None, words, by, among),
            asked[1:],
            [said, hits],
            api_name="search_words",
        )
        file.upload(searcher.by_query, asked, [said, hits], api_visibility="private")
    return page


def _show_hit(
    searcher: _Searcher,
    hit: dict[str, Any],
    path: str | None,
    options: tuple[Any, Any],
    outputs: tuple[Any, Any],
) -> None:
    import gradio as gr

    one = Hit(**{**hit, "also": tuple(hit["also"])})
    with gr.Column(elem_classes="hit", min_width=240):
        if path is None:
            gr.Markdown(
                "The file is missing." if one.is_missing else "It cannot be played."
            )
        elif path.endswith(".wav"):
            gr.Audio(path, show_label=False, interactive=False, buttons=["download"])
        else:
            gr.Video(path, show_label=False, interactive=False, height=180)
        gr.Markdown(f"**{one.similarity:.3f}** {search.place_of(one)}")
        again = gr.Button("Search with this", size="sm")

        def search_again(by: str, among: str) -> Any:
            return searcher.by_hit(hit, by, among)

        again.click(
            search_again, list(options), list(outputs), api_visibility="private"
        )
