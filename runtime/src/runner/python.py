# Waits in a sandbox that was made ahead for the one program that it will run, as `python3 main.py`
# would. Until then nothing of any tenant's is here.
#
# It says READY when it could run one. On standard input comes PREPARE, perhaps: nobody has wanted it
# for a while. Then it loads what most programs import, one module after the other, until it has or
# HURRY comes, and says READY once more. Then comes the order, and behind it the program's own
# standard input. The order is a byte, a length (4 bytes, little endian), and so many bytes of
# UTF-8: the number of open files if it is not to stay as it is, the working directory, the number
# of arguments, the arguments, then names and values of the environment, with NUL between.
#
# A template has loaded all of that, and what waits is a fork of it: it says its process id with
# READY, as 4 bytes. Told to prepare, it goes through a whole run that does nothing.
#
# What it needs itself is in every interpreter that has started: nothing is loaded for it.
import _frozen_importlib_external
import _signal
import _weakref
import atexit
import builtins
import gc
import io
import os
import sys
import time

READY = b"\x06"
HURRY = b"\x01"
PREPARE = b"\x03"

# What most programs import, what is wanted most first.
LIBRARY = (
    "collections",
    "functools",
    "enum",
    "re",
    "json",
    "math",
    "datetime",
    "random",
    "itertools",
    "types",
    "weakref",
    "threading",
    "typing",
    "string",
    "signal",
    "importlib.machinery",
    "traceback",
    "resource",
)


def rehearse():
    # The first program that is compiled and run is the slowest.
    seen, sys.stdout = sys.stdout, io.StringIO()
    try:
        names = {"__name__": "rehearsal"}
        text = "def f(x): return [i for i in range(x)]\nprint(f(3), {})"
        exec(compile(text, "rehearsal", "exec", dont_inherit=True), names)
    finally:
        sys.stdout = seen


def rehearse_all():
    # All that a run goes through, so that a fork has its own copy of whatever pages that writes to
    # before somebody waits for it.
    rehearse()
    become(["", "/", "1", "/run/0.py", "NAME", "value"])
    gc.collect()
    forget(type(sys)("rehearsal"))
    gc.collect()
    try:
        run(sys.modules["__main__"])
    except OSError:
        # There is no such program.
        pass


def template(native, filter):
    # Returns in each fork, and only there.
    import _frozen_importlib
    import _imp

    for name in LIBRARY:
        load_one(name)
    rehearse_all()
    gc.collect()
    gc.freeze()
    spec = _frozen_importlib.ModuleSpec("farebox", None, origin=native)
    module = _imp.create_dynamic(spec)
    with open(filter, "rb") as file:
        rules = file.read()
    pid = module.serve(rules)
    # What differs between forks.
    if "random" in sys.modules:
        sys.modules["random"].seed()
    return pid.to_bytes(4, "little")


def exactly(count):
    got = b""
    while len(got) < count:
        part = os.read(0, count - len(got))
        if not part:
            os._exit(0)
        got += part
    return got


def receive(pid):
    os.write(1, READY + pid)
    said = exactly(1)
    if said == PREPARE:
        if pid:
            rehearse_all()
            gc.freeze()
        else:
            load()
        os.write(1, READY)
        said = exactly(1)
    if said == HURRY:
        # It came too late.
        exactly(1)
    return exactly(int.from_bytes(exactly(4), "little")).decode().split("\0")


def load():
    os.set_blocking(0, False)
    for name in LIBRARY:
        try:
            exactly(1)
            break
        except BlockingIOError:
            pass
        load_one(name)
    else:
        gc.collect()
    os.set_blocking(0, True)
    gc.freeze()


def load_one(name):
    try:
        __import__(name)
    except ImportError:
        # Not every Python has all of it.
        pass


def become(order):
    open_files, cwd, count, *texts = order
    if open_files:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (int(open_files), int(open_files)))
    zone = os.environ.get("TZ")
    names = texts[int(count) :]
    wanted = dict(zip(names[::2], names[1::2]))
    # Most of it stays: emptied and filled anew it takes ten times as long.
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if wanted.get("TZ") != zone:
        time.tzset()
    os.chdir(cwd)
    sys.argv = texts[: int(count)]
    path = os.path.abspath(sys.argv[0])
    sys.path[0] = os.path.dirname(path)
    # A program's own modules hide those of the library, also those that are loaded already.
    for entry in os.listdir(sys.path[0]):
        name = entry.split(".")[0]
        if name not in sys.modules:
            # Then none of its own is, either.
            continue
        for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
            if hasattr(sys.modules[loaded], "__file__"):
                del sys.modules[loaded]
    module = type(sys)("__main__")
    module.__file__ = path
    module.__builtins__ = builtins
    module.__loader__ = _frozen_importlib_external.SourceFileLoader("__main__", path)
    module.__cached__ = None
    module.__annotations__ = {}
    sys.modules["__main__"] = module


def run(module):
    with io.FileIO(module.__file__) as file:
        source = file.readall()
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
        sys.__excepthook__(*sys.exc_info())
    return -_signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


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
        getattr(sys.modules.get("threading"), "_shutdown", int)()
        atexit._run_exitfuncs()
        own = [name for name in sys.modules if name not in known]
        modules = [sys.modules.pop(name) for name in own]
        modules = [_weakref.ref(one) for one in modules if isinstance(one, type(sys))]
        # What nothing else holds ends with its names still there.
        gc.collect()
        for module in modules:
            forget(module())
        gc.collect()
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = status or 120
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def main(pid=b""):
    if not pid:
        rehearse()
    gc.freeze()
    become(receive(pid))
    known = set(sys.modules) - {"__main__"}
    finish(run(sys.modules["__main__"]), known)
