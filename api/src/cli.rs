//! The command line: its words, its help, and which file carries each command out.

mod arguments;
mod client;
mod data_dir;
mod doctor;
mod exit;
mod fault;
mod image;
mod ledger;
mod output;
mod parse;
mod place;
mod quota;
mod run;
mod serve;
mod start;
mod temporary;
mod tenant;
mod token;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Command, TokenCommand};
use exit::Exit;
use fault::Fault;
use output::Output;

/// Parses the command line, carries the command out, prints a fault once, answers the exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let mut output = Output::new(cli.json);
    match carry_out(cli.command, &mut output) {
        Ok(code) => code,
        Err(fault) => {
            output.fault(&fault);
            fault.exit.into()
        }
    }
}

/// Prints help, version or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    // Where not even that can be printed there is nobody to tell.
    drop(error.print());
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

fn carry_out(command: Command, output: &mut Output) -> Result<ExitCode, Fault> {
    match command {
        Command::Usage(args) => usage::usage(&args, output)?,
        Command::Quota(command) => quota::quota(&command, output)?,
        Command::Tenant(command) => tenant::tenant(&command, output)?,
        Command::Token(TokenCommand::Create(args)) => token::create(&args, output)?,
        Command::Image(command) => image::image(&command, output)?,
        Command::Ledger(command) => ledger::ledger(&command, output)?,
        Command::Config(place) => place::config(&place, output)?,
        Command::Doctor(place) => return doctor::doctor(&place, output).map(ExitCode::from),
        Command::Launcher => return Ok(runtime::launcher_main()),
        Command::Unpack { order } => return Ok(runtime::unpack_main(&order)),
        Command::Serve(args) => serve::serve(&args)?,
        Command::Run(args) => return run::run(&args, output),
    }
    Ok(Exit::Done.into())
}
