//! The towns API. Configured by `HOST`, `PORT` and `RUST_LOG`; logs JSON lines to stdout.

mod routes;

use std::env;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_http::cors::{Any, CorsLayer};
use tower_http::trace::TraceLayer;
use towns_shared::Town;
use tracing_subscriber::EnvFilter;

const TOWNS: &str = include_str!("../data/towns.json");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    start_logging();
    let address = read_address()?;
    let towns: Vec<Town> = serde_json::from_str(TOWNS)?;
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, towns = towns.len(), "listening");
    axum::serve(listener, make_app(towns.into()))
        .with_graceful_shutdown(wait_for_shutdown())
        .await?;
    tracing::info!("stopped");
    Ok(())
}

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .init();
}

fn read_address() -> Result<SocketAddr, String> {
    let host = env::var("HOST").unwrap_or_else(|_| "0.0.0.0".into());
    let port = env::var("PORT").unwrap_or_else(|_| "3000".into());
    let ip: IpAddr = host
        .parse()
        .map_err(|_| format!("HOST={host} is not an IP address"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("PORT={port} is not a port number"))?;
    Ok(SocketAddr::new(ip, port))
}

/// The data is public and read-only, so pages of any origin may read it.
fn make_app(towns: Arc<[Town]>) -> Router {
    routes::make_router(towns)
        .layer(CorsLayer::new().allow_origin(Any))
        .layer(TraceLayer::new_for_http())
}

async fn wait_for_shutdown() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down");
}
