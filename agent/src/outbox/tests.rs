use proptest::prelude::*;
use shared::event::Outcome;
use shared::stages::Phase;

use super::*;

fn operation(n: u8) -> OperationId {
    OperationId::from_random([n; 16])
}

fn stream() -> StreamId {
    StreamId::from_random([200; 16])
}

fn draft(n: u8, body: EventBody) -> Draft {
    Draft {
        operation: operation(n),
        slot: Slot::default(),
        stream: stream(),
        attempt: 0,
        at: None,
        body,
    }
}

fn entered(n: u8) -> Draft {
    draft(n, EventBody::Entered { phase: Phase::Downloading })
}

fn ack(event: &Event, verdict: Verdict) -> Ack {
    Ack { operation: event.operation, stream: event.stream, seq: event.seq, verdict }
}

fn seqs(outbox: &Outbox) -> Vec<u64> {
    outbox.pending().map(|event| event.seq).collect()
}

#[test]
fn events_survive_until_they_are_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    let first = outbox.append(entered(1));
    let second = outbox.append(entered(1));
    let third = outbox.append(entered(1));
    assert_eq!((first.seq, second.seq, third.seq), (1, 2, 3));
    drop(outbox);

    let mut outbox = Outbox::open(state.path());
    assert!(outbox.is_durable());
    assert_eq!(seqs(&outbox), [1, 2, 3]);
    let refused = Verdict::Refused { reason: "unknown operation".into() };
    assert_eq!(outbox.settle(&[ack(&first, Verdict::Accepted), ack(&third, refused)]), 2);
    assert_eq!(outbox.settle(&[ack(&second, Verdict::Unknown)]), 0);
    drop(outbox);

    let mut outbox = Outbox::open(state.path());
    assert_eq!(seqs(&outbox), [2]);
    assert_eq!(outbox.settle(&[ack(&second, Verdict::Duplicate)]), 1);
    assert!(outbox.is_empty());
}

#[test]
fn a_number_is_never_given_twice() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    for _ in 0..400 {
        let event = outbox.append(entered(1));
        outbox.settle(&[ack(&event, Verdict::Accepted)]);
    }
    drop(outbox);
    assert_eq!(Outbox::open(state.path()).append(entered(1)).seq, 401);
    // Many other operations push the counter of the first one out.
    let mut outbox = Outbox::open(state.path());
    for n in 2..=100 {
        outbox.append(entered(n));
    }
    drop(outbox);
    assert!(Outbox::open(state.path()).append(entered(1)).seq > 401);
}

#[test]
fn the_file_stays_small_when_everything_is_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    for _ in 0..800 {
        let event = outbox.append(entered(1));
        outbox.settle(&[ack(&event, Verdict::Accepted)]);
    }
    let size = std::fs::metadata(state.path().join("outbox/log")).unwrap().len();
    assert!(size < 128 * 1024, "{size}");
}

#[test]
fn a_full_outbox_lets_go_of_what_is_no_grant_and_no_end() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    let granted = outbox.append(draft(1, EventBody::Granted));
    let end = EventBody::Finished { outcome: Outcome::Cancelled };
    let end = outbox.append(Draft { attempt: 1, ..draft(1, end) });
    for _ in 0..2 * MAX_EVENTS {
        outbox.append(entered(2));
    }
    assert_eq!(outbox.len(), MAX_EVENTS);
    let outbox = Outbox::open(state.path());
    assert_eq!(outbox.len(), MAX_EVENTS);
    assert!(outbox.pending().any(|event| *event == granted));
    assert!(outbox.pending().any(|event| *event == end));
    assert_eq!(outbox.pending().last().unwrap().seq, 2 * MAX_EVENTS as u64);
}

#[test]
fn ends_without_a_grant_do_not_fill_the_disk() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    let end = || EventBody::Finished { outcome: Outcome::Cancelled };
    let granted = outbox.append(Draft { attempt: 1, ..draft(1, end()) });
    let waits = outbox.append(entered(2));
    for n in 0..=u8::MAX {
        outbox.append(draft(n, end()));
        outbox.append(draft(n, end()));
        outbox.append(draft(n, end()));
    }
    assert_eq!(outbox.len(), MAX_EVENTS);
    assert!(outbox.pending().any(|event| *event == granted), "a modem was touched");
    assert!(outbox.pending().all(|event| *event != waits), "ends go last");
}

#[test]
fn an_answer_that_is_kept_in_memory_costs_the_disk_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(state.path());
    let kept = outbox.append(entered(1));
    let size = || std::fs::metadata(state.path().join("outbox/log")).unwrap().len();
    let before = size();
    let end = || EventBody::Finished { outcome: Outcome::Cancelled };
    for n in 0..=u8::MAX {
        outbox.append_volatile(draft(n, end()));
    }
    let last = outbox.append_volatile(draft(u8::MAX, end()));
    assert_eq!(size(), before);
    assert_eq!(outbox.len(), 1 + MAX_VOLATILE, "the latest of each operation");
    assert_eq!(outbox.pending().last(), Some(&last));
    assert_eq!(outbox.settle(&[ack(&last, Verdict::Accepted)]), 1);
    assert_eq!(outbox.len(), MAX_VOLATILE);
    assert_eq!(size(), before, "nor does its acknowledgement");
    drop(outbox);
    assert_eq!(seqs(&Outbox::open(state.path())), [kept.seq]);
}

#[test]
fn a_torn_write_loses_only_the_event_that_was_never_sent() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("outbox/log");
    let mut outbox = Outbox::open(state.path());
    outbox.append(entered(1));
    let before = std::fs::read(&file).unwrap().len();
    outbox.append(entered(1));
    let whole = std::fs::read(&file).unwrap();
    for cut in before..whole.len() {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let mut outbox = Outbox::open(state.path());
        assert_eq!(outbox.trouble(), None, "cut at {cut}");
        assert_eq!(seqs(&outbox), [1]);
        assert_eq!(outbox.append(entered(1)).seq, 2);
        assert_eq!(seqs(&Outbox::open(state.path())), [1, 2]);
    }
}

#[test]
fn damage_is_set_aside_and_the_rest_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("outbox/log");
    let mut outbox = Outbox::open(state.path());
    for _ in 0..3 {
        outbox.append(entered(1));
    }
    let mut bytes = std::fs::read(&file).unwrap();
    let lines: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i).collect();
    let middle = lines[lines.len() - 2] - 20;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let mut outbox = Outbox::open(state.path());
    assert_eq!(seqs(&outbox), [1, 3]);
    assert!(matches!(outbox.trouble(), Some(Trouble::Damaged(_))));
    assert_eq!(std::fs::read(state.path().join("outbox/log.damaged")).unwrap(), bytes);
    assert!(outbox.append(entered(1)).seq > 1_000_000, "numbers may have been lost");
    assert!(Outbox::open(state.path()).trouble().is_none());
}

#[test]
fn what_damage_has_left_stays_while_the_disk_refuses_its_successor() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("outbox/log");
    let mut outbox = Outbox::open(state.path());
    let sent: Vec<u64> = (0..3).map(|_| outbox.append(entered(1)).seq).collect();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() - 300;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    // Where the file's successor is written.
    std::fs::create_dir(state.path().join("outbox/log.tmp")).unwrap();

    let first_look = Outbox::open(state.path());
    assert!(!first_look.is_durable());
    let kept = first_look.len();
    assert!(kept > 0 && kept < sent.len(), "{kept}");
    drop(first_look);
    std::fs::remove_dir(state.path().join("outbox/log.tmp")).unwrap();

    let mut outbox = Outbox::open(state.path());
    assert_eq!(outbox.len(), kept);
    assert!(seqs(&outbox).iter().all(|seq| sent.contains(seq)), "as they were sent");
    assert!(outbox.append(entered(1)).seq > 1_000_000, "numbers may have been lost");
    assert_eq!(std::fs::read(state.path().join("outbox/log.damaged")).unwrap(), bytes);
}

#[test]
fn what_was_read_and_cannot_be_made_durable_is_sent_under_numbers_of_its_own() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("outbox/log");
    let mut outbox = Outbox::open(state.path());
    outbox.append(entered(1));
    let durable = std::fs::read(&file).unwrap();
    outbox.append(entered(1));
    drop(outbox);
    // Torn, so that it has to be replaced, and its successor cannot be written.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(b"0123");
    std::fs::write(&file, &bytes).unwrap();
    std::fs::create_dir(state.path().join("outbox/log.tmp")).unwrap();
    let outbox = Outbox::open(state.path());
    assert!(!outbox.is_durable());
    let sent = seqs(&outbox);
    assert_eq!(sent.len(), 2);
    drop(outbox);
    // A power cut: the second one had never reached the disk.
    std::fs::write(&file, &durable).unwrap();
    std::fs::remove_dir(state.path().join("outbox/log.tmp")).unwrap();
    let mut outbox = Outbox::open(state.path());
    let next = outbox.append(entered(1)).seq;
    assert!(!sent.contains(&next), "{next} was sent for another event: {sent:?}");
}

#[test]
fn garbage_and_emptiness_do_not_stop_it() {
    for garbage in [&b"\0\0\0\0"[..], b"garbage\n", b"\n\n\n", b""] {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("outbox")).unwrap();
        std::fs::write(state.path().join("outbox/log"), garbage).unwrap();
        let mut outbox = Outbox::open(state.path());
        assert!(outbox.is_durable());
        outbox.append(entered(1));
        assert_eq!(Outbox::open(state.path()).len(), 1);
    }
}

#[test]
fn without_a_disk_it_goes_on_in_memory_and_comes_back() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("outbox"), "in the way").unwrap();
    let mut outbox = Outbox::open(state.path());
    assert!(!outbox.is_durable());
    assert!(matches!(outbox.trouble(), Some(Trouble::NotDurable(_))));
    let in_memory = outbox.append(entered(1));
    assert!(in_memory.seq > 1_000_000);

    std::fs::remove_file(state.path().join("outbox")).unwrap();
    std::fs::create_dir(state.path().join("outbox")).unwrap();
    outbox.append(entered(1));
    assert!(outbox.is_durable());
    assert_eq!(outbox.trouble(), None);
    assert_eq!(Outbox::open(state.path()).len(), 2);
}

#[test]
fn the_file_format_is_the_documented_one() {
    let state = tempfile::tempdir().unwrap();
    Outbox::open(state.path()).append(draft(1, EventBody::Granted));
    let text = std::fs::read_to_string(state.path().join("outbox/log")).unwrap();
    // Byte for byte: `printf '{"version":1}' | sha256sum` begins with the first checksum.
    let expected = concat!(
        "2430f1a2ad2982d0 {\"version\":1}\n",
        "652e2eb7bd1702a4 {\"floor\":0}\n",
        "527960c681a7316e {\"put\":{\"operation\":\"01010101-0101-4101-8101-010101010101\",",
        "\"slot\":\"main\",\"stream\":\"c8c8c8c8-c8c8-48c8-88c8-c8c8c8c8c8c8\",\"seq\":1,",
        "\"attempt\":0,\"body\":{\"type\":\"granted\"}}}\n",
    );
    assert_eq!(text, expected);
}

proptest! {
    /// Whatever is cut off or flipped, reading back never panics, never invents and never
    /// gives a number again.
    #[test]
    fn any_damage_is_survived(
        count in 1_usize..12,
        cut in 0_usize..4_000,
        flips in prop::collection::vec((0_usize..4_000, 1_u8..=255), 0..3),
    ) {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("outbox/log");
        let mut outbox = Outbox::open(state.path());
        let sent: Vec<Event> = (0..count).map(|_| outbox.append(entered(1))).collect();
        let mut bytes = std::fs::read(&file).unwrap();
        for (at, mask) in flips {
            let at = at % bytes.len();
            bytes[at] ^= mask;
        }
        bytes.truncate(bytes.len().max(1).min(cut.max(1)));
        std::fs::write(&file, bytes).unwrap();

        let mut outbox = Outbox::open(state.path());
        prop_assert!(outbox.pending().all(|event| sent.contains(event)));
        let next = outbox.append(entered(1));
        let kept: Vec<u64> = seqs(&outbox);
        prop_assert_eq!(kept.iter().filter(|seq| **seq == next.seq).count(), 1);
    }
}

#[test]
fn a_disk_that_refuses_to_read_costs_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(directory.path());
    let first = outbox.append(entered(1));
    drop(outbox);
    let (log, away) = (directory.path().join("outbox/log"), directory.path().join("away"));
    std::fs::rename(&log, &away).unwrap();
    // Reading a directory fails, whoever asks.
    std::fs::create_dir(&log).unwrap();
    let mut outbox = Outbox::open(directory.path());
    let second = outbox.append(entered(1));
    assert!(!outbox.is_durable());
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    let third = outbox.append(entered(1));
    assert!(outbox.is_durable() && first.seq < second.seq && second.seq < third.seq);
    let pending: Vec<_> = Outbox::open(directory.path()).pending().cloned().collect();
    assert_eq!(pending, [first, second, third]);
}

#[test]
fn while_the_disk_refuses_no_number_follows_one_that_may_be_on_it() {
    let directory = tempfile::tempdir().unwrap();
    // Where the file's successor is written.
    std::fs::create_dir_all(directory.path().join("outbox/log.tmp")).unwrap();
    let mut outbox = Outbox::open(directory.path());
    let given: Vec<u64> = (0..3).map(|_| outbox.append(entered(1)).seq).collect();
    assert!(!outbox.is_durable());
    assert!(given.windows(2).all(|two| two[1] > two[0] + 1_000_000), "{given:?}");
}
