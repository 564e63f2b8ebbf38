//! fio with verification: what was written is read again and its checksums compared.

use anyhow::{Context, Result, ensure};

use super::fsx::Mapping;

/// What every job has in common. `SIZE` and `SEED` stand for numbers.
const ALL: &str = "
[global]
size=SIZEm
randseed=SEED
bsrange=512-64k
bs_unaligned=1
verify=crc32c
verify_fatal=1
verify_dump=0
group_reporting=1
end_fsync=1

[sequential]
rw=write

[random-by-four]
rw=randwrite
numjobs=4
stonewall

[read-between]
rw=randrw
verify_backlog=64
stonewall

[direct-by-two]
rw=randwrite
bsrange=4k-64k
bs_unaligned=0
direct=1
ioengine=libaio
iodepth=16
numjobs=2
stonewall
";

const MAPPED: &str = "
[mapped-by-two]
rw=randwrite
ioengine=mmap
numjobs=2
stonewall
";

/// The text of a file of jobs, each of which writes files of so many MiB.
#[must_use]
pub fn jobs(mapping: Mapping, size_mib: u32, seed: u64) -> String {
    let all = match mapping {
        Mapping::Works => [ALL, MAPPED].concat(),
        Mapping::Refused => ALL.to_owned(),
    };
    all.replace("SIZE", &size_mib.to_string())
        .replace("SEED", &seed.to_string())
}

/// Options that make it print one line for each job.
pub const OPTIONS: &[&str] = &["--output-format=terse", "--terse-version=3"];

/// Judges what it printed: every job wrote, read all of that again and found no difference.
pub fn judge(jobs: &str, output: &str) -> Result<()> {
    let lines: Vec<Vec<&str>> = output
        .lines()
        .filter(|line| line.starts_with("3;fio-"))
        .map(|line| line.split(';').collect())
        .collect();
    let sections = jobs.lines().filter_map(|line| {
        let name = line.strip_prefix('[')?.strip_suffix(']')?;
        (name != "global").then_some(name)
    });
    for name in sections {
        // fio(1), "terse output": name, group, error; the sixth is what was read, in KiB, the 47th what was written.
        let field = |index: usize| {
            let line = lines.iter().find(|line| line.get(2) == Some(&name));
            let line = line.with_context(|| format!("no {name} in {output}"))?;
            let text = line.get(index).context("the line is too short")?;
            Ok::<u64, anyhow::Error>(text.parse()?)
        };
        let (error, read_kib, written_kib) = (field(4)?, field(5)?, field(46)?);
        println!("{name}: {read_kib} KiB read, {written_kib} KiB written");
        ensure!(
            error == 0 && written_kib > 0 && read_kib >= written_kib,
            "{name}: error {error}, {read_kib} KiB read, {written_kib} KiB written: {output}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, error: u32, read: u32, written: u32) -> String {
        let zeros = ";0".repeat(40);
        format!("3;fio-3.33;{name};0;{error};{read}{zeros};{written};0\n")
    }

    #[test]
    fn a_job_that_did_not_verify_is_an_error() {
        let jobs = "[global]\n[a]\n[b]\n";
        let a = line("a", 0, 8, 8);
        let cases = [
            (line("b", 0, 9, 8), true),
            (line("b", 84, 9, 8), false),
            (line("b", 0, 0, 8), false),
            (line("b", 0, 0, 0), false),
            (String::new(), false),
        ];
        for (b, want) in cases {
            let output = format!("{a}{b}");
            assert_eq!(judge(jobs, &output).is_ok(), want, "{output}");
        }
    }
}
