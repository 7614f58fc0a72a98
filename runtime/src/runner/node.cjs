// Waits in a sandbox that was made ahead for the one program that it will run, as `node main.js`
// would. Until then nothing of any tenant's is here, and this file is gone before that comes.
//
// It says READY when it could run one. On standard input comes the order, and behind it the
// program's own standard input. The order is a byte, a length (4 bytes, little endian), and so many
// bytes of UTF-8: nothing, the working directory, the number of arguments, the arguments, then names
// and values of the environment, with NUL between.
const fs = require("fs");
const path = require("path");
const { runMain } = require("module");

const READY = "\x06";

function exactly(count) {
  const got = Buffer.alloc(count);
  for (let at = 0; at < count; ) {
    const read = fs.readSync(0, got, at, count - at, null);
    // The sandbox was not wanted.
    if (read === 0) process.reallyExit(0);
    at += read;
  }
  return got;
}

function receive() {
  fs.writeSync(1, READY);
  exactly(1);
  return exactly(exactly(4).readUInt32LE()).toString().split("\0");
}

function become([, cwd, count, ...texts]) {
  const names = texts.splice(Number(count));
  const wanted = new Map();
  for (let at = 0; at < names.length; at += 2) wanted.set(names[at], names[at + 1]);
  for (const name of Object.keys(process.env)) {
    if (!wanted.has(name)) delete process.env[name];
  }
  for (const [name, value] of wanted) {
    if (process.env[name] !== value) process.env[name] = value;
  }
  process.chdir(cwd);
  process.argv.splice(1, process.argv.length, path.resolve(texts[0]), ...texts.slice(1));
}

fs.unlinkSync(__filename);
delete require.cache[__filename];
// To make them takes a millisecond.
process.stdout;
process.stderr;
become(receive());
// With nothing of this file on the stack.
setImmediate(runMain);
