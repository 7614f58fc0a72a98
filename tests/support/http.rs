//! The smallest HTTP/1.1 client that the tests need: one request a connection, JSON bodies.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest that a test waits for one answer.
const TIMEOUT: Duration = Duration::from_secs(300);

/// One request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) token: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) prefer: Option<&'a str>,
    pub(crate) body: Option<&'a Value>,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Sends `request` to `address` and reads the answer to the end of the connection.
pub(crate) fn send(address: SocketAddr, request: &Request<'_>) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let body = request.body.map(Value::to_string).unwrap_or_default();
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
        request.method,
        request.path,
        body.len()
    );
    if !request.token.is_empty() {
        head.push_str(&format!("Authorization: Bearer {}\r\n", request.token));
    }
    if let Some(key) = request.key {
        head.push_str(&format!("Idempotency-Key: \"{key}\"\r\n"));
    }
    if let Some(prefer) = request.prefer {
        head.push_str(&format!("Prefer: {prefer}\r\n"));
    }
    if request.body.is_some() {
        head.push_str("Content-Type: application/json\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::other("the answer is cut off"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let mut body = bytes[end + 4..].to_vec();
    let says = |name: &str| {
        head.lines().find_map(|line| {
            let (left, right) = line.split_once(':')?;
            left.eq_ignore_ascii_case(name)
                .then(|| right.trim().to_owned())
        })
    };
    if says("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        body = unchunked(&body)?;
    } else if let Some(length) = says("content-length") {
        // A server that is killed cuts the answer anywhere: a part is no answer.
        if body.len() != length.parse::<usize>().ok()? {
            return None;
        }
    }
    let text = String::from_utf8(body).ok()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Some(Answer { status, head, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end])
            .ok()?
            .split(';')
            .next()?
            .trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = rest.get(end + 2..)?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
