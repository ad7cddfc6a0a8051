//! Bodies of answers: the lines of a watch, and one that breaks off.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use http_body::Frame;
use tokio::sync::mpsc::UnboundedReceiver;

/// The lines of a watch.
pub struct Lines {
    first: VecDeque<Bytes>,
    news: UnboundedReceiver<Bytes>,
}

impl Lines {
    /// Returns lines that are there already, and then those that come.
    pub fn new(first: VecDeque<Bytes>, news: UnboundedReceiver<Bytes>) -> Self {
        Self { first, news }
    }
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.first.pop_front() {
            Some(line) => Poll::Ready(Some(Ok(Frame::data(line)))),
            None => self.news.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }
}

/// A body that breaks off.
pub struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Err(io::Error::other("a test asked for it"))))
    }
}
