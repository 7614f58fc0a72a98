//! Ordinary programs: what people run every day works inside, and leaves nothing either.

use runtime::Limits;

use crate::bed::{Bed, LIMITS, Language, Order};
use crate::harness::Test;

/// An ordinary program, which must end with exit code 0, print exactly this and complain of
/// nothing.
struct Program {
    name: &'static str,
    language: Language,
    code: &'static str,
    prints: &'static str,
}

const fn python(name: &'static str, code: &'static str, prints: &'static str) -> Program {
    Program {
        name,
        language: Language::Python,
        code,
        prints,
    }
}

const fn node(name: &'static str, code: &'static str, prints: &'static str) -> Program {
    Program {
        name,
        language: Language::Node,
        code,
        prints,
    }
}

const fn shell(name: &'static str, code: &'static str, prints: &'static str) -> Program {
    Program {
        name,
        language: Language::Shell,
        code,
        prints,
    }
}

const PROGRAMS: &[Program] = &[
    python(
        "threads_with_numpy",
        r"
import threading, numpy
results = [0] * 4
def work(n):
    matrix = numpy.arange(10000.0).reshape(100, 100) % 7
    results[n] = float((matrix @ matrix).trace())
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(set(results)), numpy.linalg.matrix_rank(numpy.eye(50)))
",
        "1 50\n",
    ),
    python(
        "subprocesses",
        r"
import subprocess
print(subprocess.run(['sh', '-c', 'echo $((6 * 7)); exit 3'], capture_output=True, text=True))
first = subprocess.Popen(['seq', '1000'], stdout=subprocess.PIPE)
print(subprocess.run(['wc', '-l'], stdin=first.stdout, capture_output=True, text=True).stdout.strip())
try: subprocess.run(['sleep', '100'], timeout=0.1)
except subprocess.TimeoutExpired: print('timeout')
try: subprocess.run(['no-such-program'])
except FileNotFoundError: print('not found')
",
        "CompletedProcess(args=['sh', '-c', 'echo $((6 * 7)); exit 3'], returncode=3, \
         stdout='42\\n', stderr='')\n1000\ntimeout\nnot found\n",
    ),
    python(
        "multiprocessing",
        r"
import multiprocessing
def square(n): return n * n
if __name__ == '__main__':
    with multiprocessing.Pool(4) as pool: print(sum(pool.map(square, range(100))))
    queue = multiprocessing.Queue()
    lock, value = multiprocessing.Lock(), multiprocessing.Value('i', 0)
    def add():
        for _ in range(100):
            with lock: value.value += 1
        queue.put('done')
    many = [multiprocessing.Process(target=add) for _ in range(3)]
    for one in many: one.start()
    print([queue.get() for _ in many])
    for one in many: one.join()
    print(value.value)
    from multiprocessing import shared_memory
    block = shared_memory.SharedMemory(create=True, size=1 << 20)
    block.buf[0] = 7
    other = shared_memory.SharedMemory(block.name)
    print(other.buf[0])
    other.close()
    block.unlink()
",
        "328350\n['done', 'done', 'done']\n300\n7\n",
    ),
    python(
        "process_pools_that_spawn",
        r"
import multiprocessing, concurrent.futures
def cube(n): return n ** 3
if __name__ == '__main__':
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(cube, range(5))))
",
        "[0, 1, 8, 27, 64]\n",
    ),
    python(
        "asyncio_with_everything",
        r"
import asyncio
async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    async def ask(text):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(text.encode() + b'\n')
        answer = (await reader.read()).decode().strip()
        writer.close()
        return answer
    print(await asyncio.gather(*[ask(f'a{n}') for n in range(20)]))
    child = await asyncio.create_subprocess_exec('echo', 'child', stdout=asyncio.subprocess.PIPE)
    print((await child.communicate())[0], child.returncode)
    print(await asyncio.to_thread(sum, range(10)))
    unix = await asyncio.start_unix_server(serve, '/tmp/socket')
    reader, writer = await asyncio.open_unix_connection('/tmp/socket')
    writer.write(b'unix\n')
    print(await reader.read())
    server.close()
    unix.close()
asyncio.run(main())
",
        "['A0', 'A1', 'A2', 'A3', 'A4', 'A5', 'A6', 'A7', 'A8', 'A9', 'A10', 'A11', 'A12', 'A13', \
         'A14', 'A15', 'A16', 'A17', 'A18', 'A19']\nb'child\\n' 0\n45\nb'UNIX\\n'\n",
    ),
    python(
        "sqlite",
        r"
import sqlite3
for where in ':memory:', '/workspace/data.db', '/tmp/data.db':
    base = sqlite3.connect(where)
    base.execute('pragma journal_mode = wal')
    base.execute('create table t (n integer primary key, s text)')
    with base: base.executemany('insert into t (s) values (?)', [(str(n),) for n in range(1000)])
    other = sqlite3.connect(where) if where != ':memory:' else base
    print(other.execute('select count(*), max(n) from t').fetchone())
",
        "(1000, 1000)\n(1000, 1000)\n(1000, 1000)\n",
    ),
    python(
        "temporary_files",
        r"
import tempfile, os, shutil, mmap, fcntl, pathlib
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'a' / 'b'
    path.mkdir(parents=True)
    (path / 'file').write_text('x' * 100000)
    shutil.copytree(folder, folder + '-copy')
    shutil.make_archive('/workspace/out', 'zip', folder)
    shutil.rmtree(folder + '-copy')
with tempfile.NamedTemporaryFile() as file, tempfile.SpooledTemporaryFile() as other:
    file.write(b'x' * 8192); file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    print(len(mmap.mmap(file.fileno(), 0)))
    os.chmod(file.name, 0o600); os.utime(file.name); os.setxattr(file.name, 'user.a', b'b')
    print(os.getxattr(file.name, 'user.a'), os.path.getsize('/workspace/out.zip') > 100)
print(256 <= shutil.disk_usage('/workspace').total >> 20 <= 260)
",
        "8192\nb'b' True\nTrue\n",
    ),
    python(
        "loopback_server",
        r"
import http.server, threading, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('localhost', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f'http://localhost:{server.server_port}/hello').read().decode())
import socket
six = socket.create_server(('::1', 0), family=socket.AF_INET6)
print(socket.create_connection(six.getsockname()[:2]).getpeername()[0])
",
        "/hello\n::1\n",
    ),
    python(
        "decimals_dates_and_locale",
        r"
import decimal, fractions, locale, datetime, zoneinfo, unicodedata, sys, random, secrets, hashlib
decimal.getcontext().prec = 50
print(decimal.Decimal(1) / 7, fractions.Fraction(1, 3) + 1)
print(locale.setlocale(locale.LC_ALL, ''), sys.getfilesystemencoding(), '\u00fc'.encode())
print(datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc).isoformat())
random.seed(1); print(random.randint(0, 999), len(secrets.token_hex(8)), hashlib.sha256(b'').hexdigest()[:8])
open('/workspace/\u00e4\u4e2d', 'w').write('\u20ac'); print(open('/workspace/\u00e4\u4e2d').read() == '\u20ac')
",
        "0.14285714285714285714285714285714285714285714285714 4/3\n\
         C.UTF-8 utf-8 b'\\xc3\\xbc'\n2024-02-29T00:00:00+00:00\n137 16 e3b0c442\nTrue\n",
    ),
    python(
        "signals_timers_and_exit_handlers",
        r"
import atexit, signal, time, os, resource, threading
atexit.register(lambda: print('at exit'))
signal.signal(signal.SIGALRM, lambda *_: print('alarm'))
signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.pause()
signal.signal(signal.SIGUSR1, lambda *_: print('user'))
os.kill(os.getpid(), signal.SIGUSR1)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)
event = threading.Event(); threading.Timer(0.01, event.set).start(); print(event.wait(10))
print(len(os.urandom(16)), time.monotonic() > 0, len(os.sched_getaffinity(0)) > 0)
",
        "alarm\nuser\n1024 True\nTrue\n16 True True\nat exit\n",
    ),
    python(
        "large_output_within_its_limit",
        r"
import sys
for n in range(10000): print(n)
sys.stderr.flush()
",
        "",
    ),
    python(
        "pip_offline",
        r"
import subprocess, zipfile, sys
pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
print(subprocess.run(pip + ['--version'], capture_output=True, text=True).stdout.split()[0])
with zipfile.ZipFile('/workspace/tiny-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('tiny.py', 'answer = 42\n')
    about = 'tiny-1.0.dist-info/'
    wheel.writestr(about + 'METADATA', 'Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n')
    wheel.writestr(about + 'WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(about + 'RECORD', '')
done = subprocess.run(pip + ['install', '--no-index', '-q', '/workspace/tiny-1.0-py3-none-any.whl'],
                      capture_output=True, text=True)
print(done.returncode, done.stderr.strip())
print(subprocess.run([sys.executable, '-c', 'import tiny; print(tiny.answer)'], capture_output=True, text=True).stdout.strip())
",
        "pip\n0 \n42\n",
    ),
    python(
        "what_is_read_from_proc",
        r"
import os, platform
for path in 'meminfo', 'cpuinfo', 'stat', 'uptime', 'loadavg', 'version', 'self/status', 'self/maps', 'mounts':
    assert open('/proc/' + path).read(), path
print(platform.system(), os.cpu_count() >= 1, os.getlogin if False else os.uname().nodename)
print(os.path.realpath('/dev/stdout').startswith('/proc/'), os.readlink('/proc/self/exe'))
print(open('/dev/stdin').read() == '', open('/proc/self/oom_score_adj').read().strip(), flush=True)
open('/dev/stdout', 'w').write('again\n')
os.system('echo and again | tee /dev/stderr 2>&1 > /dev/null; echo once more > /dev/stdout')
",
        "Linux True sandbox\nTrue /usr/bin/python3.11\nTrue 500\nagain\nand again\nonce more\n",
    ),
    shell(
        "a_shell_script_with_tools",
        r#"set -eu
cd "$(mktemp -d)"
seq 1 100 | awk '{ s += $1 } END { print s }'
printf 'b\na\n' | sort | tr 'a-z' 'A-Z' | paste -sd, -
mkfifo pipe; (echo through > pipe) & cat pipe; wait
find /workspace -name 'main.*' | xargs -n1 basename
tar cf a.tar pipe 2> /dev/null; gzip a.tar; gzip -dc a.tar.gz | tar tf -
trap 'echo trapped' EXIT
cat > script <<'END'
#!/bin/sh
echo "script $1"
END
chmod +x script; ./script works
echo "$USER $HOME $(id -u)"
"#,
        "5050\nA,B\nthrough\nmain.sh\npipe\nscript works\nuser /home/user 1000\ntrapped\n",
    ),
    shell(
        "background_jobs",
        "sleep 0.05 & sleep 0.05 & wait; echo $?\n",
        "0\n",
    ),
    node(
        "node_with_promises_files_and_workers",
        r"
const fs = require('fs'), http = require('http'), { execFileSync } = require('child_process');
const { Worker } = require('worker_threads'), crypto = require('crypto'), zlib = require('zlib');
(async () => {
  fs.mkdirSync('a/b', { recursive: true });
  await fs.promises.writeFile('a/b/c', 'x'.repeat(1000));
  console.log(fs.readFileSync('a/b/c').length, zlib.gunzipSync(zlib.gzipSync('z')).toString());
  const server = http.createServer((_, res) => res.end('ok')).listen(0, '127.0.0.1');
  await new Promise(done => server.on('listening', done));
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/`);
  console.log(await answer.text());
  server.close();
  console.log(execFileSync('echo', ['child']).toString().trim());
  const worker = new Worker('require(`worker_threads`).parentPort.postMessage(6 * 7)', { eval: true });
  console.log(await new Promise(done => worker.on('message', done)));
  console.log(crypto.createHash('sha256').update('').digest('hex').slice(0, 8));
  console.log(await new Promise(done => setTimeout(() => done('later'), 10)));
})();
",
        "1000 z\nok\nchild\n42\ne3b0c442\nlater\n",
    ),
    node(
        "node_with_input_and_exit_code",
        r"
process.on('exit', () => console.log('exit handler'));
process.stdin.on('data', () => {}).on('end', () => console.log('end of input'));
",
        "end of input\nexit handler\n",
    ),
];

/// Every program as a test of its own.
pub(crate) fn tests() -> Vec<Test> {
    let tests = PROGRAMS.iter().map(|program| {
        let name = format!("ordinary::{}", program.name);
        Test {
            name,
            run: Box::new(move || check(program)),
        }
    });
    tests.collect()
}

fn check(program: &Program) {
    let Some(bed) = Bed::enter(program.name) else {
        return;
    };
    let order = |code: &str| Order {
        language: program.language,
        code: code.to_owned(),
        limits: Limits {
            wall_ms: 60_000,
            memory_bytes: 512 << 20,
            cpu_millis: 2000,
            ..LIMITS
        },
        env: Vec::new(),
        stdin: Vec::new(),
        kill_on_output_limit: false,
        keep_s: 0,
        argv: None,
    };
    let before = bed.baseline(&order(""));
    let report = bed.run(&order(program.code)).report;
    let (out, err) = (&report.stdout, &report.stderr);
    let (text, complaint) = (
        String::from_utf8_lossy(&out.bytes),
        String::from_utf8_lossy(&err.bytes),
    );
    let all = format!("{:?}\n{text}\n{complaint}", report.outcome);
    assert_eq!(
        report.outcome,
        runtime::Outcome::Exited { code: 0 },
        "{all}"
    );
    assert_eq!(complaint, "", "{all}");
    assert!(!out.truncated, "{all}");
    if program.name == "large_output_within_its_limit" {
        let numbers: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, numbers);
    } else {
        assert_eq!(text, program.prints, "{all}");
    }
    let (left, _) = bed.left_since(&before);
    assert!(
        left.is_none(),
        "left behind: before {before:#?}, now {left:#?}"
    );
}
