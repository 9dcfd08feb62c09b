import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.consumer.internals.AsyncKafkaConsumer;
import org.apache.kafka.clients.consumer.internals.StreamsRebalanceData;
import org.apache.kafka.clients.consumer.internals.StreamsRebalanceListener;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own client, for what kafkajs lacks: groups of the consumer protocol (KIP-848), of the streams protocol (KIP-1071),
 * share groups (KIP-932), and transactions that stay open.
 * It obeys lines on standard input and ends with them.
 */
public class Client {
  public static void main(String[] arguments) throws Exception {
    var config = new Properties();
    config.put("bootstrap.servers", arguments[1]);
    switch (arguments[0]) {
      case "consume" -> consume(config, arguments[2], arguments[3]);
      case "share" -> share(config, arguments[2], arguments[3]);
      case "stream" -> stream(config, arguments[2], arguments[3]);
      default -> produce(config, arguments[2]);
    }
  }

  /** Polls and commits every message. `pause` stops that without leaving; a topic of `/…/` is an expression. */
  static void consume(Properties config, String group, String topic) throws Exception {
    config.put("group.id", group);
    config.put("group.protocol", "consumer");
    config.put("auto.offset.reset", "earliest");
    config.put("enable.auto.commit", "false");
    config.put("isolation.level", "read_committed");
    try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
      if (topic.startsWith("/")) consumer.subscribe(new SubscriptionPattern(topic.substring(1, topic.length() - 1)));
      else consumer.subscribe(List.of(topic.split(",")));
      for (;;) {
        if (System.in.available() > 0) {
          int command = System.in.read();
          if (command == 'p') consumer.pause(consumer.assignment());
          if (command == 'r') consumer.resume(consumer.paused());
          if (command == 'q') return;
          if (command == 's') consumer.subscribe(List.of(topic.split(",")).subList(0, 1));
        }
        if (!consumer.poll(Duration.ofMillis(100)).isEmpty()) consumer.commitSync();
        System.out.println("assigned " + consumer.assignment().size());
      }
    }
  }

  /** Takes messages as a member of a share group. */
  static void share(Properties config, String group, String topic) throws Exception {
    config.put("group.id", group);
    try (var consumer = new KafkaShareConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
      consumer.subscribe(List.of(topic));
      while (System.in.available() == 0) consumer.poll(Duration.ofMillis(100));
    }
  }

  /** Consumes as Kafka Streams does with `group.protocol=streams`, with one subtopology. */
  static void stream(Properties config, String group, String topic) throws Exception {
    config.put("group.id", group);
    config.put("auto.offset.reset", "earliest");
    config.put("enable.auto.commit", "false");
    config.put("key.deserializer", StringDeserializer.class.getName());
    config.put("value.deserializer", StringDeserializer.class.getName());
    var topology = new StreamsRebalanceData.Subtopology(Set.of(topic), Set.of(), Map.of(), Map.of(), List.of());
    var data = new StreamsRebalanceData(UUID.randomUUID(), Optional.empty(), Optional.empty(), Map.of("0", topology), Map.of());
    var deserializer = new StringDeserializer();
    try (var consumer = new AsyncKafkaConsumer<>(new ConsumerConfig(config), deserializer, deserializer, Optional.of(data))) {
      consumer.subscribe(List.of(topic), new StreamsRebalanceListener() {
        public void onTasksRevoked(Set<StreamsRebalanceData.TaskId> tasks) {}

        public void onTasksAssigned(StreamsRebalanceData.Assignment assignment) {
          data.setReconciledAssignment(assignment);
        }

        public void onAllTasksLost() {}
      });
      for (;;) {
        if (System.in.available() > 0) {
          int command = System.in.read();
          if (command == 'p') consumer.pause(consumer.assignment());
          if (command == 'q') return;
        }
        if (!consumer.poll(Duration.ofMillis(100)).isEmpty()) consumer.commitSync();
        System.out.println("assigned " + consumer.assignment().size());
      }
    }
  }

  /** `b` begins a transaction and sends a message, `c` commits it, `a` aborts it, `q` ends. */
  static void produce(Properties config, String topic) throws Exception {
    config.put("transactional.id", topic);
    try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
      producer.initTransactions();
      for (int command; (command = System.in.read()) != -1; ) {
        if (command == 'b') {
          producer.beginTransaction();
          producer.send(new ProducerRecord<>(topic, 0, null, "x")).get();
        }
        if (command == 'c') producer.commitTransaction();
        if (command == 'a') producer.abortTransaction();
        if (command == 'q') return;
        if (command != '\n') System.out.println("done " + (char) command);
      }
    }
  }
}
