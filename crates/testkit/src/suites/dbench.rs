//! dbench: what a file server's clients asked for, played again, each answer compared with the one that came then.

use anyhow::{Result, ensure};

/// Where its package has the recorded calls, from `/`.
pub const CALLS: &str = "usr/share/dbench/client.txt";

/// Judges what it printed: calls were made, and every one was answered as it was once.
pub fn judge(output: &str) -> Result<()> {
    // Not the throughput: it is 0 until every client is warm, which on a busy machine comes late.
    let table = output.lines().skip_while(|line| !line.contains("AvgLat"));
    let calls: u64 = table
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    println!("{calls} calls");
    ensure!(calls > 0, "nothing was done: {output}");
    // A call that is answered otherwise than it was is told in a line of its own.
    let complaint = output
        .lines()
        .find(|line| line.starts_with('[') || line.starts_with("Child failed"));
    ensure!(complaint.is_none(), "{complaint:?}: {output}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "\
4 of 4 processes prepared for launch   0 sec
   3        35     4.54 MB/sec  warmup   1 sec  latency 522.283 ms

 Operation      Count    AvgLat    MaxLat
 ----------------------------------------
 NTCreateX        319     6.300   202.436
 Flush             22     1.779     3.924

Throughput 0 MB/sec  4 clients  4 procs  max_latency=522.283 ms
";

    #[test]
    fn a_run_without_work_or_with_a_complaint_is_an_error() {
        assert!(judge(DONE).is_ok());
        let complaint = "[12] write failed on handle 9938 (No space left on device)\n";
        for bad in [
            String::new(),
            DONE.replace("319", "0").replace(" 22 ", " 0 "),
            format!("{complaint}{DONE}"),
            format!("{DONE}Child failed with status 1\n"),
        ] {
            assert!(judge(&bad).is_err(), "{bad}");
        }
    }
}
