# One image for every command: docker run reelflow sink --gold /data/gold …
# Without a command it runs the whole pipeline of a machine: docker run -p 127.0.0.1:9467:9467 -v reelflow:/data reelflow
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-slim
LABEL org.opencontainers.image.title="reelflow" \
      org.opencontainers.image.description="Exact streaming ETL on Kafka: IMDb records to Parquet gold snapshots" \
      org.opencontainers.image.source="https://github.com/reelflow/reelflow" \
      org.opencontainers.image.licenses="MIT"
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json /app/LICENSE ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY --from=build /app/cli/reelflow.js cli/reelflow.js
# A fresh named volume takes over the owner of the folder that it is mounted on. The defaults of state and gold lie in it.
RUN mkdir -p /data/state /data/gold && chown -R node:node /data
# The user node, as a number: so runAsNonRoot of Kubernetes can check it.
USER 1000:1000
WORKDIR /data
VOLUME /data
# Sink, monitor and run, processor: whichever listens tells for its container.
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s --retries=3 \
  CMD ["node", "--input-type=module", "--eval", "const ask = (port) => fetch(`http://127.0.0.1:${port}/healthz`).then(({ ok }) => ok, () => false); process.exit((await Promise.all([9465, 9467, 9471].map(ask))).includes(true) ? 0 : 1)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "--initial-old-space-size=256", "--single-threaded-gc", "/app/cli/reelflow.js"]
CMD ["run", "--state", "/data/state", "--gold", "/data/gold", "--listen", "0.0.0.0:9467", "--metrics", "0.0.0.0"]
