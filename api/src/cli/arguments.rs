//! The words of the command line, as clap reads them; the doc comments are the help that it prints.
#![expect(clippy::doc_markdown, reason = "help prints these words as they stand")]

mod ledger;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::ledger::{
    BackupArgs, CheckpointArgs, ExportArgs, LedgerArgs, LedgerCommand, ProveArgs, RestoreArgs,
    VerifyArgs,
};
use super::parse;

const EXIT_CODES: &str = "\
Exit codes:
  0 done   1 failed   2 usage or configuration   3 refused   4 unavailable
  5 ledger does not verify   6 host cannot run sandboxes   7 journal not writable
  `run` answers the program's own code; 124 timed out, 125 did not run, 128+N signal N.

Every command takes --json. Faults say what could not be done, why, and what to do.";

/// Runs other people's code in sandboxes and writes down what each run cost.
#[derive(Debug, Parser)]
#[command(name = "farebox", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print results and faults as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: HTTP API, sandboxes and ledger.
    ///
    /// Start it as root: it starts the privileged launcher first, then becomes the user of
    /// `server.user` and gives up every capability before it listens. On first start it makes its
    /// keys and DIR/admin.token. SIGTERM drains it. With port 0 it takes a free port; the bound
    /// address is written to DIR/address once it is ready.
    #[command(after_help = "\
Examples:
  farebox serve --data-dir /var/lib/farebox --listen 127.0.0.1:8080
  farebox serve --config /etc/farebox.toml")]
    Serve(ServeArgs),
    /// Run one file in a sandbox, without a server, and print its bill.
    ///
    /// The program's output is passed on as it is, the bill goes to standard error, the exit code
    /// is the program's. Without --data-dir the ledger is a temporary one.
    #[command(after_help = "\
Examples:
  farebox run script.py
  farebox run --limit wall_ms=2000 --limit memory_bytes=128MiB script.py one two
  farebox run --json --image node main.mjs")]
    Run(RunArgs),
    /// Tokens, made offline with the key in the data directory.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Images: the root file systems that sandboxes start from.
    #[command(subcommand)]
    Image(ImageCommand),
    /// What tenants used, by window (asks the server).
    ///
    /// FROM and TO lie on borders of the window, for example 2026-11-01T00:00:00Z for a month.
    /// Without them: the month that the server is in.
    #[command(after_help = "\
Examples:
  farebox usage --group-by tenant
  farebox usage --window day --group-by meter --tenant acme")]
    Usage(UsageArgs),
    /// Quotas of a tenant (asks the server).
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Tenants (asks the server).
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Check, rebuild or export a ledger on the disk; ask a server for checkpoints and proofs.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Say what this host has and lacks for running sandboxes, each with its cure.
    Doctor(PlaceArgs),
    /// Print the effective configuration: every key, its value and the layer that it came from.
    Config(PlaceArgs),
    /// The privileged process that starts sandboxes; `serve` and `run` start it themselves.
    #[command(hide = true)]
    Launcher,
    /// The confined process that unpacks archives; `image import` starts it itself.
    #[command(hide = true)]
    Unpack {
        /// What to unpack, as JSON.
        order: String,
    },
}

/// Where the data lies and which configuration applies.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// Directory of keys, ledger, records, images and run state [default: server.data_dir].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration over the built-in one; the environment (FAREBOX_SECTION__KEY) and flags go
    /// over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Address and port to listen on; port 0 takes a free one [default: server.listen].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Image to run in: name, name:tag or digest [default: the one of the language].
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Language of FILE [default: by its ending].
    #[arg(long)]
    pub(crate) language: Option<Language>,
    /// A limit, as in the API: wall_ms, cpu_ms, cpu_millis, memory_bytes, pids, disk_bytes,
    /// inodes, open_files, output_bytes; bytes may end in KiB, MiB or GiB. May be given again.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::limit)]
    pub(crate) limit: Vec<(String, u64)>,
    /// Give the program this command's standard input, read to its end first.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// The file to run; `-` reads it from standard input.
    pub(crate) file: PathBuf,
    /// Arguments of the program.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    pub(crate) args: Vec<String>,
}

/// Languages that an image may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Python 3.
    Python,
    /// Node.js.
    Node,
    /// The image's shell.
    Shell,
}

impl Language {
    /// As the API and the command line name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Shell => "shell",
        }
    }
}

/// `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Mint a token and print it; whoever can read the data directory's key can do this.
    #[command(after_help = "\
Roles of a tenant: owner, developer, runner, billing.
Roles of an operator (without --tenant): admin, finance, auditor.

Examples:
  farebox token create --tenant acme --role developer --expires 24h
  farebox token create --role auditor")]
    Create(TokenArgs),
}

/// `token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The tenant that the token is for; without it the token is an operator's.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// The role, which stands for its scopes.
    #[arg(long)]
    pub(crate) role: String,
    /// Whom the token stands for; the tenant, or `operator`, if absent. Whoever proposes an
    /// adjustment cannot approve it, so that each operator needs a subject of their own.
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// Lifetime: a number and s, m, h or d.
    #[arg(long, default_value = "24h", value_parser = parse::duration_s)]
    pub(crate) expires: u64,
}

/// `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from its recipe (python or node) with mmdebstrap; needs root and network.
    Build(ImageArgs),
    /// Make an image of a root file system (tar, tar.gz) or of an OCI image layout; needs root.
    ///
    /// The archive is unpacked by a process that can reach nothing but the new tree. Set-id bits
    /// and extended attributes are left out; devices, sockets, pipes, foreign ids, names that lead
    /// out of the tree and sizes beyond `images.tree_max_bytes`, `images.file_max_bytes` and
    /// `images.entries_max` are refused. What is missing of /dev /proc /sys /etc /tmp /run
    /// /workspace is made.
    #[command(after_help = "\
Examples:
  farebox image import tools:1 rootfs.tar.gz --language shell
  docker save myimage | farebox image import myimage - --language python --language shell
  skopeo copy docker://debian:12 oci:debian && farebox image import debian debian

Exit codes:
  0 imported   2 malformed name, or a file that is not there   3 the archive is refused
  1 anything else, and when it is interrupted; nothing is kept then")]
    Import(ImportArgs),
    /// List the images of the store.
    List(PlaceArgs),
    /// Show one image: digest, languages, packages and their versions.
    Inspect(ImageArgs),
    /// Remove an image's name, and its files once no other name has them.
    Remove(ImageArgs),
}

/// `image build|inspect|remove`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Name, name:tag or digest of the image.
    pub(crate) name: String,
}

/// `image import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A language that code can be run in; may be given again.
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) language: Vec<Language>,
    /// Name, or name:tag, that the image gets.
    pub(crate) name: String,
    /// A tar or tar.gz, the directory of an OCI image layout, or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) source: PathBuf,
}

/// Which server is asked, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The server.
    #[arg(long, env = "FAREBOX_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The token.
    #[arg(long, env = "FAREBOX_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// `usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Start, RFC 3339, on a border of the window.
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// End, RFC 3339, on a border of the window; itself not included.
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// Length of a window: hour, day or month.
    #[arg(long)]
    pub(crate) window: Option<String>,
    /// Time zone of the borders.
    #[arg(long)]
    pub(crate) tz: Option<String>,
    /// What to tell apart: at most three of tenant, project, function, image, key, meter and
    /// tag:KEY, with commas.
    #[arg(long, value_name = "WHAT")]
    pub(crate) group_by: Option<String>,
    /// Only this tenant (for operators).
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

/// `quota`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Show the quotas with what is posted, held and free.
    Show(QuotaShowArgs),
    /// Replace a tenant's own list of quotas (for operators).
    #[command(after_help = "\
A quota is METER=LIMIT/WINDOW: meter executions, cpu_us, wall_us, memory_byte_ms, egress_bytes,
ingress_bytes, storage_byte_ms or cost; window minute, hour, day, month or lifetime.

Examples:
  farebox quota set --tenant acme executions=1000/day cpu_us=3600000000/month cost=25/month
  farebox quota set --tenant acme          (removes the tenant's own list)")]
    Set(QuotaSetArgs),
    /// Have a tenant's own list replaced at an instant to come (for operators).
    #[command(after_help = "\
A quota is written as for `quota set`; the list is the whole own list from that instant on.

Examples:
  farebox quota change --tenant acme --at 2026-12-01T00:00:00Z --reason 'ticket 7' \\
      executions=5000/day cost=100/month")]
    Change(QuotaChangeArgs),
    /// List the changes of a tenant's quotas that are to come (for operators).
    Changes(QuotaChangesArgs),
    /// Cancel a change that is still to come (for operators).
    Cancel(QuotaCancelArgs),
}

/// `quota show`.
#[derive(Debug, Args)]
pub(crate) struct QuotaShowArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Which tenant (for operators); without it the token's own.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

/// `quota set`.
#[derive(Debug, Args)]
pub(crate) struct QuotaSetArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Which tenant.
    #[arg(long)]
    pub(crate) tenant: String,
    /// The quotas.
    #[arg(value_name = "METER=LIMIT/WINDOW", value_parser = parse::quota)]
    pub(crate) quotas: Vec<parse::Quota>,
}

/// `quota change`.
#[derive(Debug, Args)]
pub(crate) struct QuotaChangeArgs {
    #[command(flatten)]
    pub(crate) set: QuotaSetArgs,
    /// From when on, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse::time_us)]
    pub(crate) at: i64,
    /// Why; it stands in the audit.
    #[arg(long)]
    pub(crate) reason: String,
}

/// `quota changes`.
#[derive(Debug, Args)]
pub(crate) struct QuotaChangesArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Which tenant.
    #[arg(long)]
    pub(crate) tenant: String,
}

/// `quota cancel`.
#[derive(Debug, Args)]
pub(crate) struct QuotaCancelArgs {
    #[command(flatten)]
    pub(crate) of: QuotaChangesArgs,
    /// The change, as `quota changes` names it.
    #[arg(value_name = "CHANGE")]
    pub(crate) id: String,
    /// Why; it stands in the audit.
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// `tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant.
    Create(TenantCreateArgs),
    /// List the tenants.
    List(ServerArgs),
    /// Show one tenant.
    Show(TenantArgs),
    /// Refuse everything that a tenant asks for; what runs ends and is charged.
    Suspend(TenantArgs),
    /// Let a suspended tenant in again.
    Resume(TenantArgs),
}

/// `tenant create`.
#[derive(Debug, Args)]
pub(crate) struct TenantCreateArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The tenant's name: it stands in every token, entry and bill.
    pub(crate) name: String,
    /// A name for people.
    #[arg(long)]
    pub(crate) display_name: Option<String>,
}

/// `tenant show|suspend|resume`.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The tenant's name.
    pub(crate) name: String,
}
