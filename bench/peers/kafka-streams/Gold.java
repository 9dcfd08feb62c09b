import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiConsumer;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * The five gold tables with Kafka Streams over row topics, until their ends. Arguments: brokers, what goes before the
 * dataset in the names of the topics, application id, folder of the Avro schemas, folder for state and results.
 *
 * Ratings are a table, basics, principals and akas streams that are joined to it; what a row adds to its group is a
 * Moments, sent to the group's partition and summed up there. A store keeps the earlier credits of a title.
 */
public class Gold {
  /** What a group is made of; the rating in tenths. `years` and `runtimes` are only there for rows of titles. */
  record Moments(long n, long things, long s1, long s2, long votes, long most, long least, long years, long withYear,
      long runtime, long withRuntime) {
    Moments plus(Moments o) {
      return new Moments(n + o.n, things + o.things, s1 + o.s1, s2 + o.s2, votes + o.votes, Math.max(most, o.most),
          Math.min(least, o.least), years + o.years, withYear + o.withYear, runtime + o.runtime,
          withRuntime + o.withRuntime);
    }

    static final Serde<Moments> SERDE = serde(
        m -> ByteBuffer.allocate(88).putLong(m.n).putLong(m.things).putLong(m.s1).putLong(m.s2).putLong(m.votes)
            .putLong(m.most).putLong(m.least).putLong(m.years).putLong(m.withYear).putLong(m.runtime)
            .putLong(m.withRuntime).array(),
        b -> new Moments(b.getLong(), b.getLong(), b.getLong(), b.getLong(), b.getLong(), b.getLong(), b.getLong(),
            b.getLong(), b.getLong(), b.getLong(), b.getLong()));
  }

  record Rating(int tenths, int votes) {
    static final Serde<Rating> SERDE = serde(r -> ByteBuffer.allocate(8).putInt(r.tenths).putInt(r.votes).array(),
        b -> new Rating(b.getInt(), b.getInt()));

    /** @param first whether the title has not been counted for this group */
    Moments of(boolean first, Integer year, Integer runtime) {
      long one = first ? 1 : 0;
      return new Moments(one, 1, one * tenths, one * tenths * tenths, one * votes, tenths, tenths,
          year == null ? 0 : year, year == null ? 0 : 1, runtime == null ? 0 : runtime, runtime == null ? 0 : 1);
    }
  }

  record Title(Rating rating, Integer year, Integer runtime, String genres) {
    Moments moments() {
      return rating.of(true, year, runtime);
    }
  }

  /** A credit or an alternative title: the person or region, the rating of the title, and whether it is its first. */
  record Part(String group, Rating rating, boolean first) {}

  record Person(String name, Moments moments) {}

  static <T> Serde<T> serde(Function<T, byte[]> to, Function<ByteBuffer, T> from) {
    return Serdes.serdeFrom((topic, value) -> value == null ? null : to.apply(value),
        (topic, bytes) -> bytes == null ? null : from.apply(ByteBuffer.wrap(bytes)));
  }

  /** Rows with the given fields only: the rest is skipped while decoding. The registry's five bytes are, too. */
  static Serde<GenericRecord> avro(Path schemas, String dataset, String... fields) throws Exception {
    Schema writer = new Schema.Parser().parse(Files.readString(schemas.resolve(dataset + ".avsc")));
    Schema reader = Schema.createRecord(writer.getName(), null, writer.getNamespace(), false, List.of(fields).stream()
        .map(name -> new Schema.Field(name, writer.getField(name).schema(), null, (Object) null)).toList());
    ThreadLocal<BinaryDecoder> decoders = new ThreadLocal<>();
    GenericDatumReader<GenericRecord> datum = new GenericDatumReader<>(writer, reader);
    return Serdes.serdeFrom((topic, record) -> { throw new UnsupportedOperationException("rows are only read"); },
        (topic, bytes) -> {
          try {
            BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(bytes, 5, bytes.length - 5, decoders.get());
            decoders.set(decoder);
            return datum.read(null, decoder);
          } catch (Exception e) {
            throw new IllegalStateException("a row of " + topic + " cannot be decoded", e);
          }
        });
  }

  static String text(GenericRecord row, String field) {
    Object value = row.get(field);
    return value == null ? null : value.toString();
  }

  /** Marks parts that are not the first of their title and group; the store knows which were there before. */
  static class Once implements FixedKeyProcessor<String, Part, Part> {
    final String store;
    KeyValueStore<String, byte[]> seen;
    FixedKeyProcessorContext<String, Part> context;

    Once(String store) {
      this.store = store;
    }

    @Override
    public void init(FixedKeyProcessorContext<String, Part> context) {
      this.context = context;
      seen = context.getStateStore(store);
    }

    @Override
    public void process(FixedKeyRecord<String, Part> row) {
      Part part = row.value();
      boolean again = seen.putIfAbsent(row.key() + part.group, new byte[0]) != null;
      context.forward(again ? row.withValue(new Part(part.group, part.rating, false)) : row);
    }
  }

  public static void main(String[] args) throws Exception {
    String brokers = args[0], prefix = args[1], application = args[2];
    Path schemas = Path.of(args[3]), out = Path.of(args[4]);
    Serde<String> string = Serdes.String();
    StreamsBuilder builder = new StreamsBuilder();

    KTable<String, Rating> ratings = builder
        .stream(prefix + "title.ratings", Consumed.with(string, avro(schemas, "title.ratings", "averageRating", "numVotes")))
        .mapValues(row -> new Rating((int) Math.round((double) row.get("averageRating") * 10), (int) row.get("numVotes")))
        .toTable(Materialized.<String, Rating, KeyValueStore<Bytes, byte[]>>as("ratings").withKeySerde(string)
            .withValueSerde(Rating.SERDE));

    Serde<GenericRecord> basics = avro(schemas, "title.basics", "startYear", "runtimeMinutes", "genres");
    KStream<String, Title> titles = builder.stream(prefix + "title.basics", Consumed.with(string, basics))
        .join(ratings, (row, rating) -> new Title(rating, (Integer) row.get("startYear"),
            (Integer) row.get("runtimeMinutes"), text(row, "genres")), Joined.with(string, basics, Rating.SERDE));
    sum(titles.filter((id, title) -> title.genres != null), "genre_analysis", title -> title.genres, Title::moments);
    sum(titles.filter((id, title) -> title.year != null), "decade_trends",
        title -> String.valueOf(Math.floorDiv(title.year, 10) * 10), Title::moments);
    sum(titles.filter((id, title) -> title.year != null), "title_ratings_agg",
        title -> title.year + (title.genres == null ? "" : "\t" + title.genres), Title::moments);

    KTable<String, Moments> people = parts(builder, ratings, prefix + "title.principals",
        avro(schemas, "title.principals", "nconst"), "nconst", "people");
    parts(builder, ratings, prefix + "title.akas", avro(schemas, "title.akas", "region"), "region", "region_analysis");

    KTable<String, String> names = builder
        .stream(prefix + "name.basics", Consumed.with(string, avro(schemas, "name.basics", "primaryName")))
        .mapValues(row -> text(row, "primaryName"))
        .toTable(Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("names").withKeySerde(string)
            .withValueSerde(string));
    Serde<Person> person = serde(
        p -> {
          byte[] moments = Moments.SERDE.serializer().serialize("", p.moments);
          byte[] name = p.name == null ? new byte[0] : p.name.getBytes(java.nio.charset.StandardCharsets.UTF_8);
          return ByteBuffer.allocate(89 + name.length).put(moments).put((byte) (p.name == null ? 0 : 1)).put(name).array();
        },
        b -> {
          byte[] moments = new byte[88];
          b.get(moments);
          boolean named = b.get() == 1;
          byte[] name = new byte[b.remaining()];
          b.get(name);
          return new Person(named ? new String(name, java.nio.charset.StandardCharsets.UTF_8) : null,
              Moments.SERDE.deserializer().deserialize("", moments));
        });
    people.leftJoin(names, (moments, name) -> new Person(name, moments),
        Materialized.<String, Person, KeyValueStore<Bytes, byte[]>>as("contributor_analysis").withKeySerde(string)
            .withValueSerde(person));

    Properties settings = new Properties();
    settings.put("bootstrap.servers", brokers);
    settings.put("application.id", application);
    settings.put("state.dir", out.resolve("state").toString());
    settings.put("num.stream.threads", "2");
    settings.put("statestore.cache.max.bytes", String.valueOf(512 << 20));
    settings.put("commit.interval.ms", "2000");
    settings.put("auto.offset.reset", "earliest");
    settings.put("topology.optimization", "all");
    settings.put("consumer.max.poll.records", "10000");
    settings.put("consumer.fetch.min.bytes", "100000");
    settings.put("consumer.fetch.max.wait.ms", "100");
    settings.put("producer.linger.ms", "50");
    settings.put("producer.batch.size", "262144");
    settings.put("producer.compression.type", "lz4");

    AtomicReference<Throwable> failure = new AtomicReference<>();
    KafkaStreams streams = new KafkaStreams(builder.build(settings), settings);
    streams.setUncaughtExceptionHandler(thrown -> {
      failure.set(thrown);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    });
    System.out.println("ready");
    streams.start();
    try (Admin admin = Admin.create(settings)) {
      Set<String> sources = Set.of("title.ratings", "title.basics", "title.principals", "title.akas", "name.basics")
          .stream().map(dataset -> prefix + dataset).collect(Collectors.toSet());
      while (!isAtEnd(admin, application, sources)) {
        if (failure.get() != null) throw new IllegalStateException(failure.get());
        Thread.sleep(500);
      }
    }
    write(streams, out, "genre_analysis", (json, key) -> json.put("genres", quoted(key)), (Moments m) -> m);
    write(streams, out, "decade_trends", (json, key) -> json.put("decade", key), (Moments m) -> m);
    write(streams, out, "title_ratings_agg", (json, key) -> {
      int tab = key.indexOf('\t');
      json.put("startYear", tab < 0 ? key : key.substring(0, tab));
      json.put("genres", tab < 0 ? "null" : quoted(key.substring(tab + 1)));
    }, (Moments m) -> m);
    write(streams, out, "region_analysis", (json, key) -> json.put("region", quoted(key)), (Moments m) -> m);
    Map<String, String> nameOf = new HashMap<>();
    writeEach(streams, out, "contributor_analysis", (String key, Person value, Map<String, String> json) -> {
      json.put("nconst", quoted(key));
      json.put("primaryName", value.name == null ? "null" : quoted(value.name));
      return value.moments;
    });
    System.out.println("done");
    streams.close(java.time.Duration.ofSeconds(20));
    System.exit(0);
  }

  /** Streams of parts, joined to the ratings and summed up by group. */
  static KTable<String, Moments> parts(StreamsBuilder builder, KTable<String, Rating> ratings, String topic,
      Serde<GenericRecord> rows, String group, String table) {
    String store = "seen-" + group;
    builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(store), Serdes.String(),
        Serdes.ByteArray()).withCachingEnabled());
    KStream<String, Part> rated = builder.stream(topic, Consumed.with(Serdes.String(), rows))
        .filter((id, row) -> row.get(group) != null)
        .join(ratings, (row, rating) -> new Part(text(row, group), rating, true),
            Joined.with(Serdes.String(), rows, Rating.SERDE))
        .processValues(() -> new Once(store), store);
    return sum(rated, table, Part::group, part -> part.rating.of(part.first, null, null));
  }

  static <V> KTable<String, Moments> sum(KStream<String, V> stream, String table, Function<V, String> group,
      Function<V, Moments> moments) {
    return stream.map((id, value) -> org.apache.kafka.streams.KeyValue.pair(group.apply(value), moments.apply(value)))
        .groupByKey(Grouped.with(table, Serdes.String(), Moments.SERDE))
        .reduce(Moments::plus, Materialized.<String, Moments, KeyValueStore<Bytes, byte[]>>as(table)
            .withKeySerde(Serdes.String()).withValueSerde(Moments.SERDE));
  }

  /** Whether every topic that the application reads, its own between included, is committed to its end. */
  static boolean isAtEnd(Admin admin, String application, Set<String> sources) throws Exception {
    Set<String> topics = admin.listTopics().names().get().stream()
        .filter(name -> sources.contains(name) || (name.startsWith(application + "-") && name.endsWith("-repartition")))
        .collect(Collectors.toSet());
    if (topics.size() < sources.size() + 5) return false;
    Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
    admin.describeTopics(topics).allTopicNames().get().forEach((name, topic) -> topic.partitions()
        .forEach(partition -> asked.put(new TopicPartition(name, partition.partition()), OffsetSpec.latest())));
    // The committed ones first: what is committed cannot be past an end that is asked for later.
    var committed = admin.listConsumerGroupOffsets(application).partitionsToOffsetAndMetadata().get();
    for (var end : admin.listOffsets(asked).all().get().entrySet()) {
      if (end.getValue().offset() == 0) continue;
      var place = committed.get(end.getKey());
      if (place == null || place.offset() < end.getValue().offset()) return false;
    }
    return true;
  }

  interface Row<V> {
    /** Puts the key's columns, and the name if there is one, into the row. */
    Moments of(String key, V value, Map<String, String> json);
  }

  static <V> void write(KafkaStreams streams, Path out, String table, BiConsumer<Map<String, String>, String> key,
      Function<V, Moments> moments) throws Exception {
    writeEach(streams, out, table, (String text, V value, Map<String, String> json) -> {
      key.accept(json, text);
      return moments.apply(value);
    });
  }

  static <V> void writeEach(KafkaStreams streams, Path out, String table, Row<V> row) throws Exception {
    var store = streams.store(StoreQueryParameters.fromNameAndType(table, QueryableStoreTypes.<String, V>keyValueStore()));
    try (KeyValueIterator<String, V> all = store.all();
        PrintWriter file = new PrintWriter(Files.newBufferedWriter(out.resolve(table + ".json")))) {
      while (all.hasNext()) {
        var entry = all.next();
        Map<String, String> json = new HashMap<>();
        Moments m = row.of(entry.key, entry.value, json);
        json.put("total_titles", String.valueOf(m.n));
        json.put("total_credits", String.valueOf(m.things));
        json.put("total_akas", String.valueOf(m.things));
        json.put("avg_rating", String.valueOf(m.s1 / 10.0 / m.n));
        json.put("total_votes", String.valueOf(m.votes));
        json.put("max_rating", String.valueOf(m.most / 10.0));
        json.put("min_rating", String.valueOf(m.least / 10.0));
        json.put("avg_year", m.withYear == 0 ? "null" : String.valueOf((double) m.years / m.withYear));
        json.put("avg_runtime", m.withRuntime == 0 ? "null" : String.valueOf((double) m.runtime / m.withRuntime));
        json.put("rating_volatility",
            m.n < 2 ? "null" : String.valueOf(Math.sqrt((double) (m.n * m.s2 - m.s1 * m.s1) / (m.n * (m.n - 1))) / 10));
        file.println(json.entrySet().stream().map(field -> "\"" + field.getKey() + "\":" + field.getValue())
            .collect(Collectors.joining(",", "{", "}")));
      }
    }
  }

  static String quoted(String text) {
    return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
  }
}
