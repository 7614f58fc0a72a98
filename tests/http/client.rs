//! A small blocking HTTP/1.1 client that can also misbehave: raw requests, half-read answers, early
//! hang-ups.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!(
                "{} with a body that is not JSON ({error}): {}",
                self.status,
                self.text()
            ),
        }
    }

    /// Asserts the status and returns the body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Asserts a problem document with that status and code, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{problem}"
        );
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "request_id", "retry"] {
            assert!(problem[member].is_string(), "no {member} in {problem}");
        }
        problem
    }
}

/// A caller of one server with one token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
}

/// A request that is being put together.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    client: &'a Client,
    method: &'a str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Client {
    pub(crate) fn request<'a>(&'a self, method: &'a str, path: &str) -> Request<'a> {
        let headers = match &self.token {
            Some(token) => vec![("Authorization".to_owned(), format!("Bearer {token}"))],
            None => Vec::new(),
        };
        Request {
            client: self,
            method,
            path: path.to_owned(),
            headers,
            body: None,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path).send()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send()
    }

    /// Asks for an execution without waiting for its end.
    pub(crate) fn post_async(&self, body: &Value) -> Answer {
        let request = self.request("POST", "/v1/executions");
        request.header("Prefer", "respond-async").json(body).send()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path).json(body).send()
    }

    /// The same server, another token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client {
            address: self.address,
            token: Some(token.to_owned()),
        }
    }

    pub(crate) fn without_token(&self) -> Client {
        Client {
            address: self.address,
            token: None,
        }
    }

    /// Sends bytes as they are and reads whatever is answered until the server closes or
    /// `Content-Length` is met.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses a body early may close before all is sent: the answer is what
        // counts.
        drop(stream.write_all(bytes));
        read_answer(BufReader::new(stream))
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        stream
    }
}

impl Request<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.bytes("application/json", body.to_string().into_bytes())
    }

    pub(crate) fn bytes(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.headers
            .push(("Content-Type".to_owned(), content_type.to_owned()));
        self.body = Some(body);
        self
    }

    pub(crate) fn send(self) -> Answer {
        read_answer(self.open())
    }

    /// Sends the request and leaves the answer unread: the caller may read it, or hang up.
    pub(crate) fn open(self) -> BufReader<TcpStream> {
        let mut stream = self.client.connect();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: farebox\r\nConnection: close\r\n",
            self.method, self.path
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = self.body.unwrap_or_default();
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        // As in `raw`: an early refusal may close the connection under the body.
        drop(stream.write_all(&bytes));
        BufReader::new(stream)
    }
}

fn read_answer(mut reader: BufReader<TcpStream>) -> Answer {
    let (status, headers) = read_head(&mut reader);
    let find = |name: &str| {
        let mut found = headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.clone())
    };
    let mut body = Vec::new();
    if let Some(length) = find("content-length").and_then(|text| text.parse::<u64>().ok()) {
        reader
            .take(length)
            .read_to_end(&mut body)
            .expect("the body can be read");
    } else if find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        while let Some(chunk) = read_chunk(&mut reader) {
            body.extend_from_slice(&chunk);
        }
    } else {
        reader.read_to_end(&mut body).expect("the body can be read");
    }
    Answer {
        status,
        headers,
        body,
    }
}

/// Reads status line and headers.
pub(crate) fn read_head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line comes");
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP status in {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("headers come");
        let line = line.trim_end();
        if line.is_empty() {
            return (status, headers);
        }
        let (name, value) = line.split_once(':').expect("a header has a colon");
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads one chunk of a chunked body; `None` is its end.
pub(crate) fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).expect("a chunk size comes");
    let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size is hexadecimal");
    let mut chunk = vec![0; size + 2];
    reader
        .read_exact(&mut chunk)
        .expect("the chunk comes whole");
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// Splits an event stream that was read whole; comments are left out.
pub(crate) fn events(text: &str) -> Vec<Event> {
    let blocks = text
        .split("\n\n")
        .filter(|block| block.lines().any(|line| line.starts_with("data:")));
    blocks.map(event).collect()
}

fn event(block: &str) -> Event {
    let field = |name: &str| {
        let mut lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .next()
            .map(|value| value.trim_start().to_owned())
            .unwrap_or_default()
    };
    let data = field("data:");
    let data =
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("event data {data:?}: {error}"));
    Event {
        name: field("event:"),
        data,
    }
}
