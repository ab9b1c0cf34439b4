"""A server that speaks raw lines, and goes wrong as it is told: ``python raw_server.py PLAN``, where PLAN is JSON.

Nothing but the standard library, so that it starts at once. Keys of the plan: ``log``, a file that gets a line for each
start and each call; ``tools`` and, after a change, ``later``; ``call``, what a call does; ``start``, what a start does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PLAN = json.loads(Path(sys.argv[1][1:]).read_text() if sys.argv[1].startswith("@") else sys.argv[1])
OPEN = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = PLAN.get("tools") or [{"name": "act", "description": "Act.", "inputSchema": OPEN}]


def note(word: str) -> None:
    if "log" in PLAN:
        with open(PLAN["log"], "a", encoding="utf-8") as log:  # noqa: PTH123  # as small as can be
            log.write(word + "\n")


def starts() -> int:
    with open(PLAN["log"], encoding="utf-8") as log:  # noqa: PTH123
        return sum(line.startswith("start") for line in log)


def say(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(number: object, said: str) -> None:
    say(id=number, result={"content": [{"type": "text", "text": said}]})


def ask(method: str, params: object) -> str:
    say(id="question", method=method, params=params)
    return sys.stdin.readline()


def called(number: int, name: str, how: str) -> None:  # noqa: C901, PLR0912  # one branch for each way to go wrong
    global TOOLS  # noqa: PLW0603
    match how:
        case "die":
            os._exit(9)
        case "die once" if starts() == 1:
            os._exit(9)
        case "hang":
            pass
        case "wrong id":
            text(number + 1000, "not yours")
        case "twice":
            text(number, "first")
            text(number, "second")
        case "junk":
            sys.stdout.write('INFO: I like to talk\n{"half": \n')
            text(number, "done")
        case "long junk":
            sys.stdout.write("x" * PLAN["size"] + "\n")
            text(number, "done")
        case "long answer":
            text(number, "x" * PLAN["size"])
        case "large":
            image = {"type": "image", "data": "A" * PLAN["size"], "mimeType": "image/png"}
            say(id=number, result={"content": [image, *({"type": "text", "text": str(n)} for n in range(150))]})
        case "change":
            TOOLS = PLAN["later"]
            say(method="notifications/tools/list_changed")
            text(number, "done")
        case "ask":
            text(number, ask("elicitation/create", PLAN["ask"]))
        case "sample":
            text(number, ask("sampling/createMessage", PLAN["ask"]))
        case "error":
            say(id=number, error={"code": -32000, "message": PLAN.get("said", "no")})
        case "result":
            say(id=number, result=PLAN["result"])
        case "environment":
            text(number, json.dumps(dict(os.environ)))
        case _:
            text(number, f"{name} done")


def main() -> None:
    note(f"start {os.getpid()}")
    match PLAN.get("start"):
        case "grandchild":
            child = subprocess.Popen(["sleep", "1000"])  # it holds our standard output
            note(f"grandchild {child.pid}")
        case "die":
            sys.stderr.write(f"cannot find the files; {os.environ.get('TOKEN', '')}\n")
            sys.exit(3)
        case "hang":
            time.sleep(1000)
        case "stay":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case _:
            pass
    for line in sys.stdin:
        message = json.loads(line)
        match message:
            case {"method": "initialize", "id": number, "params": params}:
                note("capabilities " + json.dumps(params["capabilities"]))
                version = params["protocolVersion"]
                info = {"name": "raw", "version": "1"}
                say(id=number, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
            case {"method": "tools/list", "id": number}:
                pages = PLAN.get("pages")
                page = int((message.get("params") or {}).get("cursor", 0))
                if pages:
                    more = {"nextCursor": str(page + 1)} if page + 1 < len(pages) else {}
                    say(id=number, result={"tools": pages[page], **more})
                else:
                    again = PLAN.get("later") if PLAN.get("call") == "die once" and starts() > 1 else None
                    say(id=number, result={"tools": again or TOOLS})
            case {"method": "tools/call", "id": number, "params": {"name": name}}:
                note(f"call {name}")
                called(number, name, PLAN.get("call", ""))
            case {"method": "notifications/cancelled"}:
                note("cancelled")
            case _:
                pass
    if PLAN.get("start") == "stay":
        time.sleep(1000)


main()
