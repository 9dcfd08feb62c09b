# One image for every stage; the command names it: docker run reelflow process …
FROM node:24-slim AS modules
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
# A fresh named volume takes over the owner of the folder that it is mounted on.
RUN mkdir -p /data/state /data/gold && chown -R node:node /data
COPY --from=modules /app/node_modules node_modules
COPY . .
USER node
ENTRYPOINT ["node", "--initial-old-space-size=256", "--single-threaded-gc", "/app/cli/reelflow.js"]
CMD ["--help"]
