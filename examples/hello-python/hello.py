"""The same plugin as `examples/hello`, in Python: one public route, one setting, no needs.

`GET /hello/NAME` answers with a greeting; `POST /hello` takes the name from a form. The page "In Python" of the book says how to build it.
"""

from urllib.parse import parse_qs

from wit_world import exports
from wit_world.imports import log, settings
from wit_world.imports.types import (
    Answer_Reply,
    Audience,
    BodyMode,
    Lifetime,
    Manifest,
    PluginStatus,
    Reply,
    Route,
    Setting,
    SettingKind,
)


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest(
            name="hello",
            version="1.0.0",
            summary="Greets by name",
            mounts=["/hello"],
            routes=[
                Route("GET", "/hello/:name", Audience.PUBLIC, BodyMode.NONE),
                Route("POST", "/hello", Audience.FOREMAN, BodyMode.WHOLE),
            ],
            needs=[],
            settings=[
                Setting(
                    name="greeting",
                    kind=SettingKind.TEXT,
                    default='"Hello"',
                    required=False,
                    exposed=False,
                    choices=[],
                    help="The word before the name",
                )
            ],
            lifetime=Lifetime.AUTOMATIC,
        )

    def status(self):
        return PluginStatus(capabilities=[], settings=[], problem=None)

    def start(self):
        pass

    def wake(self, events):
        return None


class Feature(exports.Feature):
    def handle(self, request):
        name = dict(request.captures).get("name") or form(request).get("name")
        if not name:
            return reply(400, "Whom shall I greet?")
        log.write(log.Level.INFO, f"greeting {name}")
        return reply(200, f"{settings.get('greeting').value}, {name}!\n")

    def on_upstream(self, keep, got):
        raise NotImplementedError("this plugin forwards nothing")


def form(request):
    fields = parse_qs(request.body.decode(errors="replace"))
    return {name: values[0] for name, values in fields.items()}


def reply(status, text):
    headers = [("content-type", "text/plain; charset=utf-8")]
    return Answer_Reply(Reply(status, headers, text.encode()))
