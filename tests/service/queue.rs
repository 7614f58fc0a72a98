//! More runs at once than there are slots: they wait in the queue, and none is refused that fits.

use serde_json::json;

use crate::http::{self, Request};
use crate::server::{self, Server};
use crate::world::World;

/// Rounds of a full queue over two slots.
const ROUNDS: usize = 5;
const AT_ONCE: usize = 8;

#[test]
fn who_has_waited_for_a_slot_gets_a_sandbox_though_the_last_is_still_being_cleared_away() {
    let Some(world) = World::enter("a queue over few slots") else {
        return;
    };
    let dir = server::data_dir();
    let settings = [
        ("FAREBOX_MACHINE__SLOTS", "2"),
        ("FAREBOX_MACHINE__QUEUE_MS", "60000"),
    ];
    let mut server = Server::start(&world, dir.path(), &settings);
    let token = server.tenant("acme");
    let address = server.address;
    let body = json!({ "language": "python", "code": "print(42)" });
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let request = Request {
                        method: "POST",
                        path: "/v1/executions",
                        token: &token,
                        body: Some(&body),
                        ..Request::default()
                    };
                    let answer = http::send(address, &request).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    assert_eq!(answer.body["stdout"], "42\n");
                });
            }
        });
    }
    assert_eq!(server.stop(), Some(0));
}
