use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shared::Timestamp;
use shared::webhook_secret::{Unverified, WebhookSecret};
use tokio::net::{TcpListener, TcpStream};

use crate::api::Api;
use crate::arguments::Listen;
use crate::failure::{Failure, Outcome};
use crate::terminal::Terminal;
use crate::words::{ellipsize, fitting};

const MAX_BYTES: usize = 20_000;

/// How long a request may take, from its connection to its answer.
const REQUEST: Duration = Duration::from_secs(10);

/// Answers requests and prints them until the process is stopped or, with `--once`, the first one has been answered.
pub(crate) async fn run(api: &Api, listen: &Listen) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    let unusable = |error| Failure::Usage(format!("port {} cannot be used: {error}", listen.port));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen.port)).await.map_err(unusable)?;
    let secrets = match &listen.secret {
        Some(secret) => vec![secret.clone()],
        None => api.webhook_secrets().await?,
    };
    terminal.println(format!("listening at http://{}/", listener.local_addr().map_err(unusable)?));
    let service = listen.secret.is_none().then_some(api);
    let receiver = Receiver { service, secrets: RefCell::new(secrets), terminal, seen: RefCell::default() };
    let mut requests = FuturesUnordered::new();
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Ok((connection, _)) => requests.push(receiver.serve(connection)),
                // Too many files are open, or the client is gone.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(received) = requests.next() => match received {
                Some(Ok(is_good)) if listen.once => {
                    return Ok(if is_good { Outcome::AllDone } else { Outcome::SomeFailed });
                }
                Some(Err(failure)) => return Err(failure),
                Some(Ok(_)) | None => {}
            },
        }
    }
}

struct Receiver<'a> {
    /// Where the secrets are from; `None` if the user has given one.
    service: Option<&'a Api>,
    /// Each of them is accepted.
    secrets: RefCell<Vec<WebhookSecret>>,
    terminal: &'a Terminal,
    seen: RefCell<HashSet<String>>,
}

impl Receiver<'_> {
    /// Answers the one request of a connection, and returns whether its signature is good; `None` if there was no POST.
    async fn serve(&self, connection: TcpStream) -> Option<Result<bool, Failure>> {
        let received = RefCell::new(None);
        let service = service_fn(async |request| {
            let (answer, result) = self.answer(request).await;
            if let Some(result) = result {
                *received.borrow_mut() = Some(result);
            }
            Ok::<_, Infallible>(answer)
        });
        let serving = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(connection), service);
        // A client that breaks the connection or sends no HTTP has no event.
        let _ = tokio::time::timeout(REQUEST, serving).await;
        received.into_inner()
    }

    async fn answer(&self, request: Request<Incoming>) -> (Response<Full<Bytes>>, Option<Result<bool, Failure>>) {
        if request.method() != Method::POST {
            return (text(StatusCode::METHOD_NOT_ALLOWED, "Send a webhook by POST."), None);
        }
        match self.verified(request).await {
            Ok((id, event)) => {
                let printed = self.print(id, &event);
                (text(StatusCode::OK, "Received."), Some(printed.map(|()| true)))
            }
            Err(why) => {
                self.terminal.println(format!("refused: {why}"));
                let printed = self.terminal.data(&json!({ "event": "refused", "why": why }));
                (text(StatusCode::BAD_REQUEST, &why), Some(printed.map(|()| false)))
            }
        }
    }

    /// The delivery's id and the event of a request whose signature is good, or else why it is refused.
    async fn verified(&self, request: Request<Incoming>) -> Result<(String, Value), String> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|_| format!("the body is incomplete, or longer than {MAX_BYTES} bytes"))?.to_bytes();
        let header = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| format!("the header {name} is missing"))
        };
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let signatures = header("webhook-signature")?;
        let now = Timestamp::from(SystemTime::now());
        let verify = || {
            let verified = |secret: &WebhookSecret| secret.verify(id, timestamp, signatures, &body, now);
            let secrets = self.secrets.borrow();
            secrets.iter().map(verified).reduce(Result::or).unwrap_or(Err(Unverified::WrongSignature))
        };
        let mut verified = verify();
        // The service may have other secrets by now, such as a local one that was started again.
        if let (Err(Unverified::WrongSignature), Some(service)) = (verified, self.service)
            && let Ok(secrets) = service.webhook_secrets().await
        {
            self.secrets.replace(secrets);
            verified = verify();
        }
        verified.map_err(|why| why.to_string())?;
        let event = serde_json::from_slice(&body).map_err(|_| "the body is not JSON".to_owned())?;
        Ok((id.to_owned(), event))
    }

    fn print(&self, id: String, event: &Value) -> Result<(), Failure> {
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let at = text("/timestamp").and_then(|at| at.get(11..19)).unwrap_or("--:--:--");
        let mut line = format!("{at}  {:13}  {}", text("/type").unwrap_or("?"), text("/data/id").unwrap_or("?"));
        let is_again = self.seen.borrow().contains(&id);
        let rest =
            [text("/data/custom_id").or(text("/data/name")), text("/data/error/code"), is_again.then_some("again")];
        for part in rest.into_iter().flatten() {
            line = format!("{line}  {}", ellipsize(part, usize::MAX));
        }
        self.terminal.show(fitting(&line, self.terminal.columns_of_output()))?;
        self.terminal.data(&json!({ "event": "delivery", "id": id, "again": is_again, "body": event }))?;
        self.seen.borrow_mut().insert(id);
        Ok(())
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "text/plain; charset=utf-8");
    answer.body(Full::from(format!("{text}\n"))).expect("the header is valid")
}
