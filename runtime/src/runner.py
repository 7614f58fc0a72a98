# Waits in a sandbox that was made ahead for the one program that it will run, as `python3 main.py`
# would. Until then nothing of any tenant's is here.
#
# On standard input come a length (4 bytes, little endian), so many bytes of JSON (argv, env, cwd,
# open_files), and behind them the program's own standard input. Not all that is imported is used
# here: it is what most programs import.
import atexit
import builtins
import collections
import datetime
import functools
import gc
import importlib.machinery
import io
import itertools
import json
import math
import os
import random
import re
import resource
import signal
import string
import sys
import threading
import time
import traceback
import types
import typing
import weakref

READY = b"\x06"


def receive():
    def exactly(count):
        got = b""
        while len(got) < count:
            part = os.read(0, count - len(got))
            if not part:
                os._exit(0)
            got += part
        return got

    return json.loads(exactly(int.from_bytes(exactly(4), "little")))


def become(order):
    most = order["open_files"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["cwd"])
    sys.argv = order["argv"]
    path = os.path.abspath(sys.argv[0])
    sys.path[0] = os.path.dirname(path)
    # A program's own modules hide those of the library, also those that are loaded already.
    for entry in os.listdir(sys.path[0]):
        name = entry.split(".")[0]
        for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
            if hasattr(sys.modules[loaded], "__file__"):
                del sys.modules[loaded]
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__builtins__ = builtins
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    module.__cached__ = None
    module.__annotations__ = {}
    sys.modules["__main__"] = module


def run(module):
    with open(module.__file__, "rb") as file:
        source = file.read()
    try:
        code = compile(source, module.__file__, "exec", dont_inherit=True)
    except Exception as error:
        return failed(error, None)
    del source
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        return asked(error.code)
    except BaseException as error:
        # Without this function's own frame.
        return failed(error, error.__traceback__.tb_next)
    return 0


def asked(code):
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def failed(error, trace):
    error.__traceback__ = trace
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException:
        traceback.print_exc()
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def forget(module):
    # In the interpreter's own order: private names go first.
    names = getattr(module, "__dict__", {})
    for private in (True, False):
        for name in list(names):
            if (name[:1] == "_" and name[:2] != "__") == private and name != "__builtins__":
                names[name] = None


def finish(status, known):
    # What the interpreter does at its end, but for the two milliseconds that it takes to free
    # everything: files that were not closed are flushed when their last name goes.
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        own = [name for name in sys.modules if name not in known]
        modules = [sys.modules.pop(name) for name in own]
        modules = [weakref.ref(one) for one in modules if isinstance(one, types.ModuleType)]
        # What nothing else holds ends with its names still there.
        gc.collect()
        for module in modules:
            forget(module())
        gc.collect()
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = status or 120
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def rehearse():
    # The first program that is compiled and run is the slowest.
    seen, sys.stdout = sys.stdout, io.StringIO()
    try:
        names = {"__name__": "rehearsal"}
        text = "import json\ndef f(x): return [i for i in range(x)]\nprint(f(3), json.dumps({}))"
        exec(compile(text, "rehearsal", "exec", dont_inherit=True), names)
    finally:
        sys.stdout = seen
    gc.collect()
    gc.freeze()


def main():
    rehearse()
    os.write(1, READY)
    order = receive()
    random.seed()
    become(order)
    known = set(sys.modules) - {"__main__"}
    finish(run(sys.modules["__main__"]), known)


main()
