//! The programs that are measured: our release binaries and what they are compared with, built on demand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Failure;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// The runtime and nothing else.
    Floor,
    Submit,
    Status,
    DeadLetter,
    Worker,
    Batch,
    Webhook,
    /// The worker with the SDK's defaults.
    WorkerDefaults,
    PeerSubmit,
    PeerWorker,
    /// The peer that paints while its caller waits.
    PeerSynchronous,
}

impl Product {
    /// The functions of the product itself.
    pub(crate) const OURS: [Self; 6] =
        [Self::Submit, Self::Status, Self::DeadLetter, Self::Worker, Self::Batch, Self::Webhook];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Submit => "submit",
            Self::Status => "status",
            Self::DeadLetter => "dead_letter",
            Self::Worker => "worker",
            Self::Batch => "batch",
            Self::Webhook => "webhook",
            Self::WorkerDefaults => "worker_defaults",
            Self::PeerSubmit => "peer's submit",
            Self::PeerWorker => "peer's worker",
            Self::PeerSynchronous => "peer, synchronous",
        }
    }
}

/// Where everything is after the build.
#[derive(Debug)]
pub(crate) struct Products {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Where builds go.
    pub(crate) target: PathBuf,
    python: PathBuf,
    /// The peer's Python, as it calls itself.
    pub(crate) python_version: String,
}

impl Products {
    /// Builds everything.
    pub(crate) async fn build() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .ok_or("the bench lies outside of the workspace")?
            .to_path_buf();
        let bench = std::env::current_exe()?;
        let target = bench.ancestors().nth(2).ok_or("the bench lies outside of a target directory")?.to_path_buf();
        let ours = Product::OURS.iter().flat_map(|product| ["-p", product.name()]);
        cargo(&root, &target).args(["build", "--release", "--locked"]).args(ours).run().await?;
        let (compared, compared_target) = (root.join("tools/bench/compared"), target.join("compared"));
        for arguments in [["--profile", "product", "floor"], ["--profile", "release", "worker_defaults"]] {
            let [option, profile, package] = arguments;
            let mut build = cargo(&compared, &compared_target);
            build.args(["build", "--locked", option, profile, "-p", package]).run().await?;
        }
        cargo(&compared, &compared_target).args(["build", "--locked", "--release", "-p", "tls_front"]).run().await?;
        let (python, python_version) = environment(&root, &target).await?;
        Ok(Self { root, target, python, python_version })
    }

    /// The binary of a function in Rust.
    pub(crate) fn binary(&self, product: Product) -> PathBuf {
        match product {
            Product::Floor => self.target.join("compared/product/floor"),
            Product::WorkerDefaults => self.target.join("compared/release/worker_defaults"),
            ours => self.target.join("release").join(ours.name()),
        }
    }

    /// A function as Lambda starts it, with nothing in its environment but what Lambda and the template set.
    pub(crate) fn command(&self, product: Product, services: &Endpoints) -> Command {
        self.command_under(&[], product, services)
    }

    /// A function under a program that watches it.
    pub(crate) fn command_under(&self, watcher: &[&str], product: Product, services: &Endpoints) -> Command {
        let module = match product {
            Product::PeerSubmit => Some("submit"),
            Product::PeerWorker => Some("worker"),
            Product::PeerSynchronous => Some("synchronous"),
            _ => None,
        };
        let program = module.map_or_else(|| self.binary(product), |_| self.python.clone());
        let mut command = match watcher {
            [] => Command::new(program),
            [watcher, arguments @ ..] => {
                let mut command = Command::new(watcher);
                command.args(arguments).arg(program);
                command
            }
        };
        if let Some(module) = module {
            command.args(["-m", "awslambdaric", &format!("{module}.handler")]);
            command.current_dir(self.root.join("tools/bench/peer"));
        }
        command.env_clear().envs(VARIABLES).envs(services.variables()).stdout(Stdio::null());
        if product == Product::Webhook {
            command.envs(VARIABLES_OF_WEBHOOK);
        }
        // Its compiled modules belong to the build, not to the source.
        command.env("PYTHONPYCACHEPREFIX", self.target.join("peer/pycache"));
        command
    }
}

/// What Lambda and `template.yaml` set, the same for all.
const VARIABLES: [(&str, &str); 32] = [
    ("AWS_REGION", "us-west-2"),
    ("AWS_DEFAULT_REGION", "us-west-2"),
    ("AWS_ACCESS_KEY_ID", "ASIABENCHBENCHBENCH0"),
    ("AWS_SECRET_ACCESS_KEY", "benchbenchbenchbenchbenchbenchbenchbench"),
    ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
    ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ("AWS_LAMBDA_LOG_LEVEL", "INFO"),
    ("TABLE_NAME", "jobs"),
    ("QUEUE_URL", "https://sqs.us-west-2.amazonaws.com/000000000000/tickets"),
    ("BATCH_QUEUE_URL", "https://sqs.us-west-2.amazonaws.com/000000000000/batches"),
    ("DEAD_LETTER_QUEUE_URL", "https://sqs.us-west-2.amazonaws.com/000000000000/dead"),
    ("PARKED_QUEUE_URL", "https://sqs.us-west-2.amazonaws.com/000000000000/parked"),
    ("IMAGE_BUCKET", "images"),
    ("BEDROCK_REGION", "us-west-2"),
    ("MODEL_ID", "stability.stable-image-core-v1:1"),
    ("MODEL_TIMEOUT_SECONDS", "60"),
    ("MAX_ATTEMPTS", "3"),
    ("MAXIMUM_CONCURRENCY", "2"),
    ("POSTERS_IN_FLIGHT", "10"),
    ("URL_LIFE_SECONDS", "3600"),
    ("DEADLINE_HOURS", "24"),
    ("RETENTION_DAYS", "30"),
    ("CURSOR_KEY", "bench"),
    ("MAX_WAIT_SECONDS", "20"),
    ("OWNER_FROM", "ApiKey"),
    ("METRICS_NAMESPACE", "bench"),
    ("PAGE", "true"),
    // Its peers make none either, and the picture of random bytes cannot be decoded.
    ("THUMBNAILS", "false"),
    ("PRICE_PER_IMAGE", "0.04"),
    // What is measured has none, but for the function that sends them.
    ("WEBHOOKS", "false"),
];

/// What the function `webhook` has beside these. Its receivers are on this machine.
const VARIABLES_OF_WEBHOOK: [(&str, &str); 4] = [
    ("WEBHOOKS", "loopback"),
    ("WEBHOOK_QUEUE_URL", "https://sqs.us-west-2.amazonaws.com/000000000000/events"),
    ("DELIVERIES_TABLE_NAME", DELIVERIES_TABLE),
    ("WEBHOOK_SECRET", "benchbenchbenchbenchbenchbenchbench"),
];

/// The name of the table of deliveries.
pub(crate) const DELIVERIES_TABLE: &str = "deliveries";

/// How long the session token of a function's role is, about. It is a part of each presigned URL, and so of each record.
const SESSION_TOKEN: usize = 1000;

/// Where the services answer.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    scheme: &'static str,
    addresses: Vec<String>,
    /// The certificates to trust, by the variable that names them.
    certificates: Vec<(&'static str, PathBuf)>,
}

impl Endpoints {
    /// Services that speak plain HTTP.
    pub(crate) fn plain(addresses: &[SocketAddr]) -> Self {
        let addresses = addresses.iter().map(SocketAddr::to_string).collect();
        Self { scheme: "http", addresses, certificates: Vec::new() }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let names = [
            "AWS_ENDPOINT_URL_DYNAMODB",
            "AWS_ENDPOINT_URL_SQS",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        ];
        let addresses = self.addresses.iter().map(|address| format!("{}://{address}", self.scheme));
        let certificates = self.certificates.iter().map(|(name, path)| (*name, path.display().to_string()));
        let token = ("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2Vj".repeat(SESSION_TOKEN / 16));
        names.into_iter().zip(addresses).chain(certificates).chain([token]).collect()
    }
}

/// TLS before the services.
#[derive(Debug)]
pub(crate) struct TlsFront {
    _process: Child,
    addresses: Vec<String>,
    directory: tempfile::TempDir,
}

impl TlsFront {
    pub(crate) async fn start(products: &Products, services: &[SocketAddr]) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let mut process = Command::new(products.target.join("compared/release/tls_front"))
            .arg(directory.path().join("authority.pem"))
            .args(services.iter().map(SocketAddr::to_string))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("the TLS front says nothing")?;
        let line = BufReader::new(output).lines().next_line().await?.ok_or("the TLS front ended")?;
        let addresses = line.split_whitespace().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Self { _process: process, addresses, directory })
    }

    /// The services behind TLS, for a function that trusts the bundle `usual`, and the front's own authority.
    ///
    /// Each kind of client has its own variable for that, and reads its usual roots as well, as it would on Lambda. Ours
    /// has five of its own and reads no others, so its `usual` is `None`.
    pub(crate) fn endpoints(&self, variable: &'static str, usual: Option<&Path>) -> Result<Endpoints, Failure> {
        let certificates = vec![(variable, self.bundle(variable, usual)?)];
        Ok(Endpoints { scheme: "https", addresses: self.addresses.clone(), certificates })
    }

    /// A file with the certificates of the bundle `usual` and of the front's own authority.
    pub(crate) fn bundle(&self, name: &str, usual: Option<&Path>) -> Result<PathBuf, Failure> {
        let own = std::fs::read_to_string(self.directory.path().join("authority.pem"))?;
        let usual = usual.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
        let bundle = self.directory.path().join(format!("{name}-{}.pem", usual.len()));
        std::fs::write(&bundle, usual + "\n" + &own)?;
        Ok(bundle)
    }

    /// Where the service with this index answers.
    pub(crate) fn address(&self, index: usize) -> &str {
        &self.addresses[index]
    }
}

impl Products {
    /// The roots that the peer's SDK brings along.
    pub(crate) async fn roots_of_peer(&self) -> Result<PathBuf, Failure> {
        let script = "import botocore, os; print(os.path.join(os.path.dirname(botocore.__file__), 'cacert.pem'))";
        Ok(PathBuf::from(Command::new(&self.python).args(["-c", script]).told().await?))
    }

    /// The roots of the machine, which the SDK for Rust reads by default.
    pub(crate) fn roots_of_machine() -> Result<PathBuf, Failure> {
        let places = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        let found = places.iter().map(PathBuf::from).find(|place| place.exists());
        found.ok_or_else(|| "this machine has no certificate store that the bench knows of".into())
    }
}

/// Installs the peer's packages once, and gives back its Python and what version it is.
async fn environment(root: &Path, target: &Path) -> Result<(PathBuf, String), Failure> {
    let requirements = root.join("tools/bench/peer/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let directory = target.join("peer");
    let python = directory.join("venv/bin/python");
    // The mark is written last, so that an interrupted installation is repeated.
    let mark = directory.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok((python.clone(), Command::new(&python).arg("--version").told().await?));
    }
    let mut newest = None;
    // The newest that Lambda offers and this machine has. One that is only a stub of a version manager does not run.
    for name in ["python3.13", "python3.12", "python3"] {
        if Command::new(name).arg("--version").told().await.is_ok() {
            newest = Some(name);
            break;
        }
    }
    let newest = newest.ok_or("the peer needs Python 3")?;
    std::fs::create_dir_all(&directory)?;
    Command::new(newest).args(["-m", "venv", "--clear"]).arg(directory.join("venv")).run().await?;
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    install.arg("-r").arg(&requirements).run().await?;
    std::fs::write(&mark, wanted)?;
    Ok((python.clone(), Command::new(&python).arg("--version").told().await?))
}

/// Cargo in a workspace.
pub(crate) fn cargo(workspace: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).env("CARGO_TARGET_DIR", target);
    cargo
}

/// Commands that are run to their end.
pub(crate) trait Run {
    /// Runs it, and fails where it does.
    async fn run(&mut self) -> Result<(), Failure>;

    /// Runs it and gives back what it wrote to standard output.
    async fn told(&mut self) -> Result<String, Failure>;
}

impl Run for Command {
    async fn run(&mut self) -> Result<(), Failure> {
        let status = self.stdin(Stdio::null()).status().await?;
        if status.success() { Ok(()) } else { Err(format!("{:?} ended with {status}", self.as_std()).into()) }
    }

    async fn told(&mut self) -> Result<String, Failure> {
        let output = self.stdin(Stdio::null()).stderr(Stdio::null()).output().await?;
        if !output.status.success() {
            return Err(format!("{:?} ended with {}", self.as_std(), output.status).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
