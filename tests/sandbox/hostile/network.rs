//! Programs that look for a way out: metadata services, the host's loopback and sockets, names.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::OnceLock;

use super::{Control, PLAIN, Program, Share, tame};
use crate::bed::Bed;

/// A port of the host's loopback that answers, as the API's does.
pub(super) fn port(_: &Bed) -> u16 {
    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| TcpListener::bind("127.0.0.1:0").unwrap());
    listener.local_addr().unwrap().port()
}

/// An abstract socket of the host, which lives in its network namespace and not in a directory.
pub(super) fn abstract_name() -> String {
    static LISTENER: OnceLock<UnixListener> = OnceLock::new();
    let name = format!("farebox-test-{}", std::process::id());
    LISTENER.get_or_init(|| {
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        UnixListener::bind_addr(&address).unwrap()
    });
    name
}

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "reaching_out",
        threat: "metadata services hand out the machine's credentials; other hosts are attacked \
            from here",
        code: r#"
            import socket
            def reach(family, address):
                with socket.socket(family, socket.SOCK_STREAM) as one:
                    one.settimeout(2)
                    try:
                        one.connect((address, 80))
                        return "reached"
                    except TimeoutError:
                        return "timeout"
                    except OSError as error:
                        return errno.errorcode[error.errno]
            for address in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "10.0.0.1",
                            "192.168.0.1", "8.8.8.8"):
                tell(address, reach(socket.AF_INET, address))
            tell("v6", reach(socket.AF_INET6, "fd00:ec2::254"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                attempt("udp", lambda: one.sendto(b"x", ("8.8.8.8", 53)))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                attempt("broadcast", lambda: one.sendto(b"x", ("255.255.255.255", 53)))
                attempt("multicast", lambda: one.sendto(b"x", ("224.0.0.1", 53)))
        "#,
        prints: "169.254.169.254 ENETUNREACH\n169.254.170.2 ENETUNREACH
            100.100.100.200 ENETUNREACH\n10.0.0.1 ENETUNREACH\n192.168.0.1 ENETUNREACH
            8.8.8.8 ENETUNREACH\nv6 ENETUNREACH|EADDRNOTAVAIL\nudp ENETUNREACH
            broadcast ENETUNREACH\nmulticast ENETUNREACH",
        control: tame(
            r#"
            import socket
            server = socket.create_server(("127.0.0.1", 0))
            client = socket.create_connection(server.getsockname())
            tell("8.8.8.8", "reached")
            "#,
            "8.8.8.8 reached",
        ),
        ..PLAIN
    },
    Program {
        name: "the_hosts_loopback",
        threat: "the API and everything else that trusts 127.0.0.1 of the host",
        code: r#"
            import socket
            def reach(port):
                try:
                    with socket.create_connection(("127.0.0.1", port), 5) as one:
                        # A socket that happens to call from the very port meets itself.
                        met = one.getsockname() == one.getpeername()
                        return "ECONNREFUSED" if met else "reached"
                except OSError as error:
                    return errno.errorcode[error.errno]
            ports = [int(os.environ["FAREBOX_PORT"])] if "OUTSIDE" in os.environ else range(1, 65536)
            results = {reach(port) for port in ports}
            tell("ports", sorted(results))
        "#,
        limits: |limits| {
            limits.wall_ms = 120_000;
            limits.cpu_ms = 100_000;
        },
        prints: "ports ['ECONNREFUSED']",
        control: Control::Outside(Share::Network, "ports ['reached']"),
        ..PLAIN
    },
    Program {
        name: "abstract_sockets_of_the_host",
        threat: "a socket without a path is reached through a shared network namespace",
        code: r#"
            import socket
            names = [line.split()[-1] for line in open("/proc/net/unix").readlines()[1:]]
            tell("listed", len([name for name in names if name.startswith("@")]))
            name = os.environ.get("FAREBOX_NAME", "farebox-test-1")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                attempt("connect", lambda: one.connect("\0" + name))
        "#,
        prints: "listed 0\nconnect ECONNREFUSED",
        control: Control::Outside(Share::Network, "listed >=1\nconnect ok"),
        ..PLAIN
    },
    Program {
        name: "interfaces_and_names",
        threat: "another interface than the loopback, or a resolver, is a way out",
        code: r#"
            import fcntl, socket, struct
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            def address(*parts):
                return struct.pack("=HH4s8x", socket.AF_INET, 0, bytes(parts))
            device = ctypes.create_string_buffer(b"lo")
            route = struct.pack("Q16s16s16sHhxxxxQPhxxxxxxPQQHxxxxxx", 0, address(10, 0, 0, 0),
                                address(0, 0, 0, 0), address(255, 0, 0, 0), 1, 0, 0, 0, 0,
                                ctypes.addressof(device), 0, 0, 0)
            attempt("add-route", lambda: fcntl.ioctl(one, 0x890B, route))
            tell("interfaces", sorted(name for _, name in socket.if_nameindex()))
            tell("routes", len(open("/proc/net/route").readlines()) - 1)
            for name in "example.com", "metadata.google.internal":
                try:
                    socket.getaddrinfo(name, 80)
                    tell(name, "found")
                except socket.gaierror:
                    tell(name, "unknown")
            servers = [line for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
            tell("servers", len(servers))
            tell("localhost", socket.gethostbyname("localhost"))
        "#,
        prints: "add-route EPERM\ninterfaces ['lo']\nroutes 0\nexample.com unknown
            metadata.google.internal unknown\nservers 0\nlocalhost 127.0.0.1",
        control: Control::Outside(Share::Nothing, "add-route ok\nroutes 1"),
        ..PLAIN
    },
    Program {
        name: "changing_the_network",
        threat: "addresses, routes, packets of other kinds: with its own namespace, not with \
            its rights",
        code: r#"
            import fcntl, socket, struct
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            request = struct.pack("16sh14x", b"lo", 0)
            attempt("down", lambda: fcntl.ioctl(one, 0x8914, request))
            address = struct.pack("16sH2s4s8x", b"lo", socket.AF_INET, b"\0\0", bytes([10, 0, 0, 1]))
            attempt("address", lambda: fcntl.ioctl(one, 0x8916, address))
            attempt("mark", lambda: one.setsockopt(socket.SOL_SOCKET, 36, 1))
            attempt("transparent", lambda: one.setsockopt(socket.SOL_IP, 19, 1))
            low = socket.socket()
            attempt("port-80", lambda: low.bind(("127.0.0.1", 80)))
        "#,
        prints: "down EPERM\naddress EPERM\nmark EPERM\ntransparent EPERM\nport-80 EACCES|ok",
        control: Control::Outside(Share::Nothing, "down ok\naddress ok\nmark ok"),
        ..PLAIN
    },
];
