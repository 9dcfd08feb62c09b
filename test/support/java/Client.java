import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own client, for what kafkajs lacks: groups of the consumer protocol (KIP-848), and transactions that stay open.
 * It obeys lines on standard input and ends with them.
 */
public class Client {
  public static void main(String[] arguments) throws Exception {
    var config = new Properties();
    config.put("bootstrap.servers", arguments[1]);
    if (arguments[0].equals("consume")) consume(config, arguments[2], arguments[3]);
    else produce(config, arguments[2]);
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
