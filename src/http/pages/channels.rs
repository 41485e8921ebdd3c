//! The channels: what journeys reach their systems by, and what stands in the way.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;

use super::{page, safe};
use crate::http::Shared;
use crate::http::model::ChannelView;

pub(in crate::http) async fn channels(State(shared): State<Arc<Shared>>) -> Response {
    page(&shared, StatusCode::OK, "channels.html", |shared| {
        let board = &shared.views.board;
        let channels = ChannelView::all(board, ChannelView::users(board));
        vec![("here", Value::from("channels")), ("channels", safe(shared, &channels))]
    })
    .await
}
