//! Lies about lengths and numbers: targets, attributes, statistics.

use anyhow::{Result, ensure};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{self, opcode};
use virtiofs_testkit::slowfs::lies::{self, Caching, Told};

use crate::rig::{Rig, well_formed};

#[test]
fn targets_of_odd_lengths_are_cut_to_what_a_target_can_be() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let node = rig.look_up("link")?;
    let targets: [Vec<u8>; 6] = [
        Vec::new(),
        vec![b't'; 1],
        vec![b't'; 4095],
        vec![b't'; 4096],
        vec![b't'; 5000],
        b"a\0b".to_vec(),
    ];
    for target in targets {
        let told = target.clone();
        rig.lie(opcode::READLINK, move |_| Told::Bytes(told.clone()));
        let read = well_formed(rig.client().readlink(node))?;
        if let Ok(read) = read {
            ensure!(read.len() <= 4095 && target.starts_with(&read), "{read:?}");
            ensure!(!read.contains(&0), "{read:?}");
        }
    }
    rig.finish_unharmed()
}

/// Each row: the size that is stated, the length that is given, and what arrives in 64 bytes.
#[test]
fn attributes_that_change_their_size_arrive_whole_or_not_at_all() -> Result<()> {
    const ROOM: u32 = 64;
    let Some(mut rig) = Rig::start(Caching::None, &["--xattr"])? else {
        return Ok(());
    };
    let node = rig.look_up("file")?;
    let rows: [(u32, usize, bool); 6] = [
        (10, 10, true),
        (10, 3, true),
        (10, 0, true),
        (10, 64, true),
        (10, 65, false),
        (u32::MAX, 10, true),
    ];
    for (stated, given, arrives) in rows {
        for about in [opcode::GETXATTR, opcode::LISTXATTR] {
            rig.lie(about, move |question| {
                let asked: abi::GetxattrIn = question.argument().unwrap_or_default();
                if asked.size == 0 {
                    let size = abi::XattrSizeOut {
                        size: stated,
                        padding: 0,
                    };
                    return Told::Bytes(zerocopy::IntoBytes::as_bytes(&size).to_vec());
                }
                let mut names = vec![b'n'; given];
                names[..given.min(5)].copy_from_slice(&b"user."[..given.min(5)]);
                if let Some(last) = names.last_mut() {
                    *last = 0;
                }
                Told::Bytes(names)
            });
            let sized = |size| match about {
                opcode::GETXATTR => Request::getxattr(node, b"user.name", size),
                _ => Request::listxattr(node, size),
            };
            let client = rig.client();
            if let Ok(answer) = well_formed(client.call(&sized(0)))? {
                let told: abi::XattrSizeOut = client.body(&answer)?;
                ensure!(told.size <= 65_536, "{stated} stated, {} told", told.size);
            }
            let fetched = well_formed(client.call(&sized(ROOM)))?;
            let len = fetched.map(|answer| client.data_len(&answer));
            match about {
                opcode::GETXATTR if arrives => ensure!(len == Ok(given), "{given}: {len:?}"),
                _ if !arrives => ensure!(len.is_err(), "{given}: {len:?}"),
                _ => ensure!(len.is_err() || len == Ok(given), "{given}: {len:?}"),
            }
        }
    }
    rig.finish_unharmed()
}

/// Attributes and statistics out of numbers that make no sense.
#[test]
fn numbers_that_make_no_sense_are_passed_on_or_refused() -> Result<()> {
    let words = [
        0,
        1,
        u64::from(u32::MAX),
        1 << 63,
        u64::MAX,
        0x7fff_ffff_ffff_ffff,
    ];
    let Some(mut rig) = Rig::start(Caching::None, &["--cache=adaptive"])? else {
        return Ok(());
    };
    let node = rig.look_up("file")?;
    for word in words {
        let half = u32::try_from(word & u64::from(u32::MAX))?;
        let attr = abi::Attr {
            size: word,
            blocks: word,
            atime: word,
            mtime: word,
            ctime: word,
            atimensec: half,
            mtimensec: half,
            ctimensec: half,
            nlink: half,
            uid: half,
            gid: half,
            rdev: half,
            blksize: half,
            ..lies::attributes(lies::FILE)
        };
        rig.fs.lie(move |question| match question.opcode {
            opcode::GETATTR if question.node == lies::FILE => Told::Bytes(lies::attr_out(attr)),
            opcode::STATFS => Told::Bytes(
                [[half; 2], [half; 2]]
                    .as_flattened()
                    .iter()
                    .cycle()
                    .take(20)
                    .flat_map(|word| word.to_ne_bytes())
                    .collect(),
            ),
            _ => Told::Honestly,
        });
        let asked = Request::getattr(node, None);
        if let Ok(out) = well_formed(rig.client().call_for::<abi::AttrOut>(&asked))? {
            let told = out.attr;
            let nanos = [told.atimensec, told.mtimensec, told.ctimensec];
            ensure!(nanos.iter().all(|nanos| *nanos < 1_000_000_000), "{told:?}");
            ensure!(told.size == word && told.mode == 0o100_644, "{told:?}");
            // However long ago it has changed, or is going to.
            ensure!((1..=60).contains(&out.attr_valid), "{out:?}");
        }
        let _ = well_formed(rig.client().statfs(node))?;
    }
    rig.finish_unharmed()
}
