//! dbench: what a file server's clients asked for, played again, each answer compared with the one that came then.

use anyhow::{Context, Result, ensure};

/// Where its package has the recorded calls, from `/`.
pub const CALLS: &str = "usr/share/dbench/client.txt";

/// Judges what it printed: the sum at the end is there, and says that something was done.
pub fn judge(output: &str) -> Result<()> {
    let line = output.lines().find(|line| line.starts_with("Throughput "));
    let line = line.with_context(|| format!("no sum: {output}"))?;
    println!("{line}");
    let done = line.split(' ').nth(1).context("no number")?;
    ensure!(done.parse::<f64>()? > 0.0, "nothing was done: {output}");
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

    #[test]
    fn a_run_without_work_or_with_a_complaint_is_an_error() {
        let sum = "Throughput 80.1 MB/sec  2 clients  2 procs\n";
        assert!(judge(sum).is_ok());
        for bad in [
            "",
            "Throughput 0.0 MB/sec  2 clients\n",
            &format!("[12] open a failed for handle 1\n{sum}"),
        ] {
            assert!(judge(bad).is_err(), "{bad}");
        }
    }
}
