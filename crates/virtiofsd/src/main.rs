//! The `virtiofsd` program: from the command line to an exit code.

use std::process::ExitCode;

use virtiofsd::background::{Process, Ready};
use virtiofsd::cli::{self, Stopped};
use virtiofsd::plan::{CAPABILITIES, Plan, PlanError};
use virtiofsd::{background, inheritance, logging, serve};

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(Stopped::Answered(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stopped::NoArguments(help)) => {
            eprint!("{help}");
            return ExitCode::from(2);
        }
        Err(Stopped::Mistake(why)) => return usage(&why),
    };
    if cli.process.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    match Plan::new(&cli) {
        Ok(plan) => run(&plan),
        Err(PlanError::Usage(why)) => usage(&why),
        Err(PlanError::Configuration(why)) => {
            eprintln!("virtiofsd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn usage(why: &str) -> ExitCode {
    eprintln!("virtiofsd: {why}; try '--help'");
    ExitCode::from(2)
}

fn run(plan: &Plan) -> ExitCode {
    let begun = inheritance::refuse(&plan.listen).and_then(|()| background::begin(plan.ground));
    match begun {
        Ok(Process::Started(code)) => ExitCode::from(code),
        Ok(Process::Daemon(ready, terminal)) => {
            logging::start(plan.log_level, plan.log, terminal);
            work(plan, ready)
        }
        Err(why) => {
            eprintln!("virtiofsd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work(plan: &Plan, ready: Ready) -> ExitCode {
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    match serve::run(plan, ready) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
