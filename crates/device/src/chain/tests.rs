use virtiofs_protocol::{GuestPages, PageWriter};

use super::*;
use crate::memory::RingAddresses;
use crate::memory::tests::{Guest, USER};

const PAGE: u64 = 4096;
/// Ring, indirect tables and buffers of a test, all in one region from page 1 to page 31.
const TABLE: u64 = PAGE;
const SIZE: u16 = 8;
const INDIRECT_AT: u64 = 4 * PAGE;
const BUFFER: u64 = 8 * PAGE;

/// Writes bytes to pieces of guest memory, as a reply does.
pub(crate) fn put(memory: &Memory, pieces: &mut [IoVec], bytes: &[u8]) -> usize {
    let pages: GuestPages<'_, virtiofs_protocol::Writable> = pages(memory, pieces);
    let mut writer = PageWriter::new(pages);
    assert!(writer.push(bytes));
    writer.written_bytes()
}

/// A descriptor's bytes.
pub(crate) fn bytes(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut bytes = address.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&next.to_ne_bytes());
    bytes
}

pub(crate) fn guest() -> Guest {
    Guest::new(&[(PAGE, 31), (64 * PAGE, 1)])
}

pub(crate) fn ring(guest: &Guest, size: u16) -> RingMemory {
    let at = RingAddresses {
        descriptors: USER + TABLE,
        available: USER + 2 * PAGE,
        used: USER + 3 * PAGE,
    };
    RingMemory::new(&guest.memory, size, at).unwrap()
}

/// Address, length, flags, next.
type Row = (u64, u32, u16, u16);

fn place(guest: &Guest, at: u64, rows: &[Row]) {
    for (index, &(address, len, flags, next)) in (0..).zip(rows) {
        guest.write(0, at - PAGE + 16 * index, &bytes(address, len, flags, next));
    }
}

type Outcome = Result<[usize; 3], BadChain>;

/// Readable bytes behind what was copied, room for the header, room for the body.
fn outcome(guest: &Guest, head: u16) -> Outcome {
    let chain = Chain::new(&ring(guest, SIZE), head, Box::default());
    let mut chain = chain.map_err(|(bad, _)| bad)?;
    let reply_header: usize = chain
        .buffers
        .reply_header
        .iter()
        .map(|p| p.len_bytes())
        .sum();
    let request = chain.request();
    let payload = request.payload.len_bytes();
    Ok([payload, reply_header, request.reply.body_bytes()])
}

/// What the rows of a test's tables make of GETATTR: 40 bytes of header, 16 of arguments.
fn with_request(guest: &Guest) {
    let mut request = vec![0; 56];
    request[0] = 56;
    request[4] = 3;
    guest.write(0, BUFFER - PAGE, &request);
}

const HERE: u64 = BUFFER;
const THERE: u64 = BUFFER + 2 * PAGE;
const W: u16 = WRITE;
const WN: u16 = WRITE | NEXT;

/// Each case is a table, of which the chain at index 0 is read.
fn direct(cases: &[(&str, &[Row], Outcome)]) {
    for (what, rows, want) in cases {
        let guest = guest();
        with_request(&guest);
        place(&guest, TABLE, rows);
        assert_eq!(outcome(&guest, 0), *want, "{what}");
    }
}

#[test]
fn a_chain_may_be_cut_anywhere() {
    direct(&[
        (
            "request and reply",
            &[(HERE, 56, NEXT, 1), (THERE, 120, W, 0)],
            Ok([0, 16, 104]),
        ),
        (
            "payload stays",
            &[(HERE, 100, NEXT, 1), (THERE, 16, W, 0)],
            Ok([44, 16, 0]),
        ),
        (
            "header cut in two",
            &[
                (HERE, 20, NEXT, 1),
                (HERE + 20, 36, NEXT, 2),
                (THERE, 120, W, 0),
            ],
            Ok([0, 16, 104]),
        ),
        (
            "reply cut in the header",
            &[(HERE, 56, NEXT, 1), (THERE, 5, WN, 2), (THERE, 30, W, 0)],
            Ok([0, 16, 19]),
        ),
        (
            "too little for a header",
            &[(HERE, 56, NEXT, 1), (THERE, 15, W, 0)],
            Ok([0, 15, 0]),
        ),
        ("no reply", &[(HERE, 56, 0, 0)], Ok([0, 0, 0])),
        (
            "empty buffers",
            &[(HERE, 0, NEXT, 1), (HERE, 56, NEXT, 2), (THERE, 0, W, 0)],
            Ok([0, 0, 0]),
        ),
    ]);
}

#[test]
fn a_chain_that_breaks_a_rule_is_none() {
    use BadChain::{Descriptors, Memory, Order, Short};
    let hole = 40 * PAGE;
    let endless = [(HERE, 8, NEXT, 1); 8];
    let whole: Vec<Row> = (1..9)
        .map(|n| (HERE, 8, if n < 8 { NEXT } else { 0 }, n))
        .collect();
    direct(&[
        (
            "next beyond the table",
            &[(HERE, 56, NEXT, 8)],
            Err(Descriptors),
        ),
        ("next is itself", &[(HERE, 56, NEXT, 0)], Err(Descriptors)),
        ("a loop", &endless, Err(Descriptors)),
        ("as long as the table", &whole, Ok([8, 0, 0])),
        (
            "indirect inside",
            &[(HERE, 56, NEXT, 1), (INDIRECT_AT, 16, INDIRECT, 0)],
            Err(Descriptors),
        ),
        (
            "writable first",
            &[(THERE, 16, WN, 1), (HERE, 56, 0, 0)],
            Err(Order),
        ),
        ("only writable", &[(THERE, 160, W, 0)], Err(Short)),
        ("39 bytes", &[(HERE, 39, 0, 0)], Err(Short)),
        ("40 bytes", &[(HERE, 40, 0, 0)], Ok([0, 0, 0])),
        ("in a hole", &[(hole, 56, 0, 0)], Err(Memory)),
        ("into a hole", &[(32 * PAGE - 8, 56, 0, 0)], Err(Memory)),
        (
            "at the end of addresses",
            &[(u64::MAX, 56, 0, 0)],
            Err(Memory),
        ),
        ("4 GiB", &[(HERE, u32::MAX, 0, 0)], Err(Memory)),
        (
            "reply in a hole",
            &[(HERE, 56, NEXT, 1), (hole, 16, W, 0)],
            Err(Memory),
        ),
    ]);
    assert_eq!(
        outcome(&guest(), SIZE),
        Err(BadChain::Descriptors),
        "head beyond the table"
    );
}

#[test]
fn each_rule_of_an_indirect_table_is_kept() {
    use BadChain::{Descriptors, Memory};
    let good: &[Row] = &[(HERE, 56, NEXT, 1), (BUFFER + PAGE, 120, W, 0)];
    let nested: &[Row] = &[(INDIRECT_AT, 32, INDIRECT, 0), (HERE, 56, 0, 0)];
    let looping: &[Row] = &[(HERE, 56, NEXT, 1), (HERE, 56, NEXT, 0)];
    let beyond: &[Row] = &[(HERE, 56, NEXT, 2), (HERE, 56, 0, 0)];
    let at = INDIRECT_AT;
    let served = Ok([0, 16, 104]);
    let cases: &[(&str, &[Row], Row, Outcome)] = &[
        ("well-formed", good, (at, 32, INDIRECT, 0), served),
        ("next without its flag", good, (at, 32, INDIRECT, 7), served),
        ("writable table", good, (at, 32, INDIRECT | W, 0), served),
        ("room behind", good, (at, 64, INDIRECT, 0), served),
        (
            "and more behind",
            good,
            (at, 32, INDIRECT | NEXT, 1),
            Err(Descriptors),
        ),
        ("empty", good, (at, 0, INDIRECT, 0), Err(Descriptors)),
        (
            "no multiple of 16",
            good,
            (at, 33, INDIRECT, 0),
            Err(Descriptors),
        ),
        ("cut off", good, (at, 16, INDIRECT, 0), Err(Descriptors)),
        (
            "65536 entries",
            good,
            (at, 16 << 16, INDIRECT, 0),
            Err(Descriptors),
        ),
        ("nested", nested, (at, 32, INDIRECT, 0), Err(Descriptors)),
        ("looping", looping, (at, 32, INDIRECT, 0), Err(Descriptors)),
        (
            "next beyond",
            beyond,
            (at, 32, INDIRECT, 0),
            Err(Descriptors),
        ),
        (
            "nowhere",
            good,
            (40 * PAGE, 32, INDIRECT, 0),
            Err(Descriptors),
        ),
        (
            "round the end",
            good,
            (u64::MAX - 7, 32, INDIRECT, 0),
            Err(Descriptors),
        ),
        (
            "buffer nowhere",
            &[(8, 56, 0, 0)],
            (at, 16, INDIRECT, 0),
            Err(Memory),
        ),
    ];
    for (what, table, row, want) in cases {
        let guest = guest();
        with_request(&guest);
        place(&guest, INDIRECT_AT, table);
        place(&guest, TABLE, &[*row]);
        assert_eq!(outcome(&guest, 0), *want, "{what}");
    }
}

#[test]
fn a_chain_of_very_many_pieces_is_refused() {
    let most = u16::try_from(MOST_PIECES).unwrap();
    for (count, want) in [
        (most, Ok([usize::from(most) - 56, 0, 0])),
        (most + 1, Err(BadChain::Pieces)),
    ] {
        let guest = Guest::new(&[(PAGE, 255)]);
        with_request(&guest);
        let at = 100 * PAGE;
        let rows: Vec<Row> = (0..count)
            .map(|n| {
                (
                    BUFFER + u64::from(n),
                    1,
                    if n + 1 < count { NEXT } else { 0 },
                    n + 1,
                )
            })
            .collect();
        place(&guest, at, &rows);
        place(&guest, TABLE, &[(at, 16 * u32::from(count), INDIRECT, 0)]);
        assert_eq!(outcome(&guest, 0), want, "{count} pieces");
    }
}

#[test]
fn a_request_is_copied_once_and_does_not_change_under_its_reader() {
    let guest = guest();
    with_request(&guest);
    place(
        &guest,
        TABLE,
        &[(BUFFER, 56, NEXT, 1), (BUFFER + PAGE, 120, WRITE, 0)],
    );
    let mut chain = Chain::new(&ring(&guest, SIZE), 0, Box::default()).unwrap();
    let before = format!("{:?}", chain.request().head);
    guest.write(0, BUFFER - PAGE, &[0xff; 56]);
    assert_eq!(format!("{:?}", chain.request().head), before);
}

#[test]
fn buffers_that_were_used_before_carry_nothing_over() {
    let guest = guest();
    with_request(&guest);
    place(
        &guest,
        TABLE,
        &[
            (BUFFER, 100, NEXT, 1),
            (BUFFER + PAGE, 120, WRITE, 0),
            (BUFFER, 40, 0, 0),
        ],
    );
    let ring = ring(&guest, SIZE);
    let first = Chain::new(&ring, 0, Box::default()).unwrap();
    let mut second = Chain::new(&ring, 2, first.into_buffers()).unwrap();
    let request = second.request();
    assert_eq!(request.payload.len_bytes(), 0);
    assert!(!request.reply.takes_header());
}
