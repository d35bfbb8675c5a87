"""The page: choose, look, preview, start; the jobs; and a comparison."""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, get_args

import gradio as gr
from gradio import themes

from iart.errors import IARTError
from iart.upscaling.film.request import AUTO, GROUPS, OUTPUT, Flag, options_of_requests
from iart.video.write.codecs import CONTAINERS
from iart.web import views
from iart.web.command import PREVIEW_SECONDS, CommandError, flags, info, preview_seconds, run_iart
from iart.web.folder import OWN, Folder
from iart.web.jobs import SIDES, Jobs, Previews

POLL_SECONDS = 1.0
_FIRST = ("size", "crf")
_LABELS = {"crf": "Quality (CRF)", "hdr": "HDR", "start_seconds": "Start", "end_seconds": "End"}
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_SHOWN: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


class Page:
    """The page of a folder.

    Attributes:
        blocks: to be mounted.
        theme: without fonts from elsewhere.
    """

    def __init__(self, folder: Folder, jobs: Jobs) -> None:
        """Build it; it asks the disk for everything that changes."""
        self._folder, self._jobs = folder, jobs
        self._previews = Previews(folder, jobs)
        self.theme = _theme()
        with gr.Blocks(
            title="iart", analytics_enabled=False, delete_cache=(3600, 86400)
        ) as self.blocks:
            gr.Markdown(f"# iart\nVideos in `{folder.root.name}`, made larger and restored.")
            with gr.Tab("Restore"):
                self._restore()
            with gr.Tab("Compare"):
                self._compare()
            gr.Markdown("## Jobs")
            self._list()

    def _restore(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._form()
            with gr.Column(scale=3, min_width=320):
                self._results()
        self._wire()

    def _form(self) -> None:
        folder = self._folder
        self._source = gr.Dropdown(folder.sources(), label="Video", value=None, elem_id="source")
        with gr.Row():
            self._again = gr.Button("Refresh the list", size="sm")
            self._upload = gr.UploadButton("Add a video", size="sm", file_types=["video"])
        self._model = gr.Dropdown(folder.models(), value=AUTO, label="Model")
        self._container = gr.Dropdown(list(CONTAINERS), value="mkv", label="Container")
        self._options: dict[str, Any] = {}
        for name in _FIRST:
            self._field(name)
        for group in GROUPS:
            names = [n for n, flag in _flags().items() if flag.group == group and n not in _FIRST]
            if names and group != OUTPUT:
                with gr.Accordion(group, open=False):
                    for name in names:
                        self._field(name)
        self._output = gr.Textbox(label="Name of the result", max_lines=1, elem_id="output")
        self._field("overwrite")

    def _field(self, name: str) -> None:
        """An input for an option, with the help and the default that the command has."""
        field, flag = options_of_requests()[name], _flags()[name]
        label = _LABELS.get(name, name.replace("_", " ").capitalize())
        shown: dict[str, Any] = {"label": label, "info": flag.help, "elem_id": f"option-{name}"}
        default = field.default
        if isinstance(default, bool):
            self._options[name] = gr.Checkbox(default, **shown)
        elif flag.choices:
            value = default if default in flag.choices else ""
            choices = list(flag.choices) if value else ["", *flag.choices]
            shown |= {"value": value, "allow_custom_value": True}
            self._options[name] = gr.Dropdown(choices, **shown)
        else:
            text = "" if default in (None, ()) else str(default)
            self._options[name] = gr.Textbox(placeholder=text, max_lines=1, **shown)

    def _results(self) -> None:
        shortest, longest, usual = PREVIEW_SECONDS
        self._error = gr.HTML(elem_id="error")
        self._found = gr.HTML("<p>Choose a video.</p>", elem_id="found")
        with gr.Row():
            self._at = gr.Number(0, label="Preview at (seconds)", minimum=0, elem_id="at")
            self._length = gr.Slider(
                *(shortest, longest, usual),
                step=0.01,
                label="Length (seconds)",
                info="Set so that a preview takes about a minute on this machine.",
                elem_id="length",
            )
        with gr.Row():
            self._look = gr.Button("Preview", elem_id="preview")
            self._start = gr.Button("Start", variant="primary", elem_id="start")
        self._preview = gr.State("")
        self._shown = gr.State("")
        self._viewer = gr.HTML(elem_id="viewer", js_on_load=views.SYNCHRONOUS + views.ACTIONS)
        self._command = gr.HTML(elem_id="command")

    def _wire(self) -> None:
        fields = [self._source, self._model, self._container, self._output]
        form: list[Any] = [*fields, *self._options.values()]
        told: list[Any] = [self._error, *self._options.values()]

        def choose(*form_values: Any) -> list[Any]:
            def work() -> list[Any]:
                source, model, container, _, values = self._read(form_values)
                words = [f"--model={model}", f"--container={container}", *flags(values)]
                lines, told = info(self._folder.find(source), self._folder.root, words)
                name = f"{PurePath(source).with_suffix('')}_x4.{container}"
                length = preview_seconds(told) or gr.skip()
                return [views.table(lines, source), length, name]

            return self._told(work, 3)

        def look(before: str, at: float, length: float, *form_values: Any) -> list[Any]:
            def work() -> list[Any]:
                source, model, _, _, values = self._read(form_values)
                id_ = self._previews.begin(source, model, values, at, length)
                if id_ != before:
                    self._previews.stop(before)
                return [id_, ""]

            return self._told(work, 2)

        def stop(id_: str, event: gr.EventData) -> list[Any]:
            if not isinstance(event._data, dict) or event._data.get("action") != "stop":
                return [gr.skip()] * 3
            return leave(id_)

        def leave(id_: str) -> list[Any]:
            self._previews.stop(id_)
            return ["", "", ""]

        def start(*form_values: Any) -> list[Any]:
            def work() -> list[Any]:
                source, model, container, output, values = self._read(form_values)
                path = self._folder.output(output, container)
                words = ["upscale", str(self._folder.find(source)), f"--output={path}"]
                words += [f"--model={model}", *flags(values)]
                run_iart([*words, "--dry-run"], self._folder.root)
                words.append("--progress-every=1")
                self._jobs.add("film", source, self._folder.name(path), words)
                return [views.command(words)]

            return self._told(work, 1)

        def again() -> list[Any]:
            return [
                gr.update(choices=self._folder.sources()),
                gr.update(choices=self._folder.models()),
            ]

        def add(file: str) -> list[Any]:
            def work() -> list[Any]:
                name = self._folder.take_upload(Path(file))
                return [gr.update(choices=self._folder.sources(), value=name)]

            return self._told(work, 1)

        def another_container(*form_values: Any) -> list[Any]:
            *rest, _, output = choose(*form_values)  # the length stays
            return [*rest, output]

        found = [*told, self._found, self._length]
        self._source.change(choose, form, [*found, self._output], **_SHOWN)
        self._container.input(another_container, form, [*told, self._found, self._output], **_SHOWN)
        self._model.input(lambda *values: choose(*values)[:-1], form, found, **_SHOWN)
        asked = [self._preview, self._at, self._length, *form]
        self._look.click(look, asked, [*told, self._preview, self._shown], **_SHOWN)
        stopped = [self._preview, self._shown, self._viewer]
        self._viewer.click(stop, self._preview, stopped, **_QUIET)
        self._source.change(leave, self._preview, stopped, **_QUIET)  # it is of another video
        self._start.click(start, form, [*told, self._command], **_SHOWN)
        self._again.click(again, None, [self._source, self._model], **_QUIET)
        self._upload.upload(add, self._upload, [*told, self._source], **_SHOWN)

    def _read(self, form: tuple[Any, ...]) -> tuple[str, str, str, str, dict[str, Any]]:
        """Source, model, container, output and options; a client may send anything."""
        source, model, container, output, *values = form
        if not source:
            raise CommandError("choose a video first")
        if container not in CONTAINERS:
            raise CommandError(f"unknown container {container!r}")
        options = dict(zip(self._options, values, strict=True))
        return str(source), self._folder.model(str(model)), container, str(output or ""), options

    def _told(self, work: Callable[[], list[Any]], count: int) -> list[Any]:
        """Updates of the error, of the help of each option, and of `count` results of `work`.

        A refusal stands at the field that it is about.
        """
        message, field, results = "", None, [gr.skip()] * count
        try:
            results = work()
        except CommandError as error:
            message, field = str(error), error.field
        except IARTError as error:
            message = str(error)
        helps = [
            gr.update(info=f"⚠ {message}" if name == field else flag.help)
            for name, flag in ((name, _flags()[name]) for name in self._options)
        ]
        return [views.error(message), *helps, *results]

    def _look_at_preview(self, id_: str, shown: str) -> tuple[Any, str]:
        """The viewer and what it shows."""
        if not id_:  # a look from before it was stopped may have come after
            return ("" if shown else gr.skip()), ""
        if shown == id_:
            return gr.skip(), shown
        found = self._previews.progress(id_)
        failed = [progress.message for progress in found if progress.state == "failed"]
        if failed or not found:
            return (views.error(failed[0]) if failed else ""), id_
        if all(progress.state == "done" for progress in found):
            return views.before_and_after(*(f"preview/{id_}-{side}" for side in SIDES)), id_
        html = views.status("Preview", found[1], job=id_)
        return gr.skip() if html == shown else html, html

    def _compare(self) -> None:
        names = self._folder.sources()
        gr.Markdown(
            "Two videos, and a reference if there is one: the original that both are scored by."
        )
        with gr.Row():
            chosen = [gr.Dropdown(names, value=None, label=label) for label in ("First", "Second")]
            chosen.append(gr.Dropdown(["", *names], value="", label="Reference (optional)"))
        with gr.Row():
            again = gr.Button("Refresh the list", size="sm")
            begin = gr.Button("Compare", variant="primary", elem_id="compare")
        self._compared, self._reported = gr.State(""), gr.State("")
        problem = gr.HTML(elem_id="compare-error")
        self._report = gr.HTML(elem_id="report")

        def compare(first: str, second: str, reference: str) -> list[Any]:
            try:
                if not first or not second:
                    raise CommandError("choose two videos first")
                words = ["compare", *(str(self._folder.find(n)) for n in (first, second))]
                words += [f"--reference={self._folder.find(reference)}"] if reference else []
                id_ = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
                output = f"{OWN}/previews/{id_}"
                words += [f"--output={self._folder.root / output}/", "--overwrite"]
                self._jobs.add("compare", first, output, words, id_=id_)
            except IARTError as error:
                return [views.error(str(error)), "", ""]
            return ["", id_, ""]

        def names_again() -> list[Any]:
            found = self._folder.sources()
            return [gr.update(choices=found)] * 2 + [gr.update(choices=["", *found])]

        begin.click(compare, chosen, [problem, self._compared, self._reported], **_SHOWN)
        again.click(names_again, None, chosen, **_QUIET)

    def _look_at_report(self, id_: str, shown: str) -> tuple[Any, str]:
        if not id_ or shown == id_:
            return gr.skip(), shown
        try:
            progress = self._jobs.progress(self._jobs.find(id_))
        except IARTError:
            return gr.skip(), shown
        if progress.state == "failed":
            return views.error(progress.message), id_
        if progress.state == "done":
            address = f"report/{id_}/compare.html"
            return f'<iframe class=report title="Comparison" src="{address}"></iframe>', id_
        html = views.status("Comparison", progress)
        return gr.skip() if html == shown else html, html

    def _list(self) -> None:
        listed = gr.HTML(self._films, elem_id="jobs", js_on_load=views.ACTIONS)
        last = gr.State("")

        def tick(last: str, preview: str, shown: str, compared: str, reported: str) -> list[Any]:
            films = self._films()
            return [
                gr.skip() if films == last else films,
                films,
                *self._look_at_preview(preview, shown),
                *self._look_at_report(compared, reported),
            ]

        def act(event: gr.EventData) -> str:
            data = event._data if isinstance(event._data, dict) else {}
            acts = {"pause": self._jobs.pause, "go on": self._jobs.go_on}
            acts["cancel"] = self._jobs.cancel
            try:
                acts[str(data.get("action"))](self._jobs.find(str(data.get("job"))))
            except (IARTError, KeyError):
                return self._films()  # it is gone: another tab was faster
            return self._films()

        listed.click(act, None, listed, **_QUIET)
        gr.Timer(POLL_SECONDS).tick(
            tick,
            [last, self._preview, self._shown, self._compared, self._reported],
            [listed, last, self._viewer, self._shown, self._report, self._reported],
            **_QUIET,
        )

    def _films(self) -> str:
        films = [job for job in self._jobs.all() if job.kind == "film"]
        return views.jobs_list([(job, self._jobs.progress(job)) for job in films])


def _flags() -> dict[str, Flag]:
    return {name: get_args(field.type)[1] for name, field in options_of_requests().items()}


def _theme() -> themes.Base:
    """Fonts of the system, and colours that are told apart from what is behind them."""
    theme = themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    muted = {"block_info_text_color": "*neutral_600", "block_label_text_color": "*neutral_600"}
    muted |= {"block_title_text_color": "*neutral_700", "input_placeholder_color": "*neutral_600"}
    return theme.set(
        **muted,
        **{f"{name}_dark": "*neutral_200" for name in muted},
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
