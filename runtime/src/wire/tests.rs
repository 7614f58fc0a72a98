//! What passes through a socket, and what hostile packets come to.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .unwrap()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

const GO: ToShim = ToShim::Go(Go {
    execution: [7; 16],
    wall_us: 1,
    cpu_us: 2,
    cpu_millis: 3,
    keep_s: 4,
});

#[test]
fn frame_and_descriptors_arrive_together() {
    let (near, far) = pair();
    let file = tempfile::tempfile().unwrap();
    send(near.as_fd(), &GO, FRAME_MAX, &[file.as_fd()]).unwrap();
    let (frame, descriptors) = recv::<ToShim>(far.as_fd(), FRAME_MAX).unwrap().unwrap();
    assert_eq!(frame, GO);
    let [received] = exactly::<1>(descriptors).unwrap();
    assert_ne!(received.as_raw_fd(), file.as_raw_fd());
}

#[test]
fn end_of_stream_is_none() {
    let (near, far) = pair();
    drop(near);
    assert!(recv::<ToShim>(far.as_fd(), FRAME_MAX).unwrap().is_none());
}

#[test]
fn truncated_frames_of_every_length_are_malformed() {
    let whole = encode(&GO, FRAME_MAX).unwrap();
    for len in 0..whole.len() {
        let cut = decode::<ToShim>(&whole[..len]);
        assert!(
            matches!(cut, Err(WireError::Malformed { .. })),
            "{len}: {cut:?}"
        );
    }
    assert_eq!(decode::<ToShim>(&whole).unwrap(), GO);
}

#[test]
fn trailing_bytes_are_malformed() {
    let mut bytes = encode(&GO, FRAME_MAX).unwrap();
    bytes.push(0);
    assert!(matches!(
        decode::<ToShim>(&bytes),
        Err(WireError::Malformed { .. })
    ));
}

#[test]
fn another_version_is_refused() {
    let mut bytes = encode(&GO, FRAME_MAX).unwrap();
    bytes[0] = 99;
    assert!(matches!(
        decode::<ToShim>(&bytes),
        Err(WireError::Version { found: 99, .. })
    ));
}

#[test]
fn claimed_length_beyond_the_frame_is_malformed_and_allocates_nothing() {
    let mut bytes = encode(&ToInit::Chunk(Vec::new()), FRAME_MAX).unwrap();
    bytes.pop();
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(
        decode::<ToInit>(&bytes),
        Err(WireError::Malformed { .. })
    ));
}

#[test]
fn oversized_frames_are_neither_sent_nor_received() {
    let (near, far) = pair();
    let chunk = ToInit::Chunk(vec![1; FRAME_MAX]);
    let sent = send(near.as_fd(), &chunk, FRAME_MAX, &[]);
    assert!(matches!(sent, Err(WireError::TooLong { .. })));
    send(near.as_fd(), &chunk, INIT_FRAME_MAX, &[]).unwrap();
    let received = receive(far.as_fd(), FRAME_MAX);
    assert!(matches!(received, Err(WireError::Cut { .. })));
}

/// A peer that sends as many descriptors as the kernel lets it must not fill our table.
#[test]
fn greedy_descriptors_are_closed_with_their_frame() {
    let (near, far) = pair();
    let file = tempfile::tempfile().unwrap();
    let many = vec![file.as_fd(); KERNEL_DESCRIPTORS_MAX];
    let before = open_descriptors();
    send_bytes(near.as_fd(), &encode(&GO, FRAME_MAX).unwrap(), &many).unwrap();
    let packet = receive(far.as_fd(), FRAME_MAX).unwrap().unwrap();
    let (_, descriptors) = packet.decode::<ToShim>().unwrap();
    assert_eq!(descriptors.len(), KERNEL_DESCRIPTORS_MAX);
    assert!(matches!(
        exactly::<2>(descriptors),
        Err(WireError::Descriptors { .. })
    ));
    send_bytes(near.as_fd(), &vec![1; FRAME_MAX + 1], &many).unwrap();
    assert!(matches!(
        receive(far.as_fd(), FRAME_MAX),
        Err(WireError::Cut { .. })
    ));
    // Other tests of this process open files of their own at the same time, but not hundreds.
    assert!(open_descriptors() < before + KERNEL_DESCRIPTORS_MAX);
}

#[test]
fn text_is_clipped_at_a_character() {
    let text = "\u{e4}".repeat(TEXT_MAX);
    let clipped = clip(&format!("x{text}"));
    assert_eq!(clipped.len(), TEXT_MAX - 1);
    assert_eq!(clip("short"), "short");
}

#[test]
fn every_chunk_and_refusal_fits_its_frame() {
    let chunk = ToInit::Chunk(vec![0; CHUNK_MAX]);
    assert!(encode(&chunk, INIT_FRAME_MAX).is_ok());
    let refusal = FromShim::Failed {
        step: clip(&"s".repeat(9999)),
        reason: clip(&"r".repeat(9999)),
    };
    assert!(encode(&refusal, FRAME_MAX).is_ok());
}
