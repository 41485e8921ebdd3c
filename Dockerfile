# The image: the daemon, CA certificates, time zones, nothing else.
#
#   docker build --tag journeyman .
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges --stop-timeout=30 \
#     --volume ./config:/etc/journeyman:ro --volume journeyman:/var/lib/journeyman \
#     --publish 9464:9464 --publish 9465:9465 journeyman
#
# In a container the listeners must be on 0.0.0.0, and the store in /var/lib/journeyman: it is the one place that can be written.
# Podman keeps HEALTHCHECK only with --format docker.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --features full --locked \
    && install -D target/release/journeyman /out/usr/bin/journeyman \
    && install -d -m 0700 /out/var/lib/journeyman

# Distroless rather than debian:bookworm-slim: no shell and no package manager, so nothing to run and little to patch; it has what a Rust
# program needs beside itself (the same glibc as the builder's, libgcc, ca-certificates, tzdata) and the user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/usr/bin/journeyman /usr/bin/journeyman
COPY --from=build --chown=65532:65532 /out/var/lib/journeyman /var/lib/journeyman

# SQLite sorts and vacuums in files; on a read-only root there is no /tmp for them.
ENV SQLITE_TMPDIR=/var/lib/journeyman
USER 65532:65532
WORKDIR /etc/journeyman
VOLUME ["/var/lib/journeyman"]
# Metrics, health, pages and API; inbound webhooks.
EXPOSE 9464 9465
# The daemon drains for at most 20 s: give it longer than the usual 10 before the kill.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/bin/journeyman", "health", "--config", "/etc/journeyman/journeyman.toml"]

ENTRYPOINT ["/usr/bin/journeyman"]
CMD ["run", "--config", "/etc/journeyman/journeyman.toml"]

ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Journeyman" \
      org.opencontainers.image.description="Synthetic end-to-end monitoring: sends real messages, waits for them at the far end, tells people once." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
