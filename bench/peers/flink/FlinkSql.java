import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs a file of Flink SQL in a local cluster in this JVM: all its INSERTs as one job, which reads every topic once.
 * Java runs this file as it is: {@code java -cp 'jars/*' FlinkSql.java statements.sql}.
 */
public class FlinkSql {
  public static void main(String[] args) throws Exception {
    Configuration settings = new Configuration();
    settings.setString("parallelism.default", "2");
    settings.setString("pipeline.object-reuse", "true");
    settings.setString("taskmanager.numberOfTaskSlots", "2");
    settings.setString("taskmanager.memory.network.max", "256m");
    settings.setString("taskmanager.memory.network.min", "256m");
    // Changes of a key are gathered before they are looked up, retracted and sent on.
    settings.setString("table.exec.mini-batch.enabled", "true");
    settings.setString("table.exec.mini-batch.allow-latency", "1 s");
    settings.setString("table.exec.mini-batch.size", "50000");
    settings.setString("table.optimizer.agg-phase-strategy", "TWO_PHASE");
    TableEnvironment tables =
        TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build());
    System.out.println("ready");
    StatementSet job = tables.createStatementSet();
    String text = Files.readString(Path.of(args[0])).replaceAll("(?m)^--.*$", "");
    for (String statement : text.split(";\\s*(\n|$)")) {
      if (statement.isBlank()) continue;
      if (statement.strip().startsWith("INSERT")) job.addInsertSql(statement);
      else tables.executeSql(statement);
    }
    job.execute().await();
    System.out.println("done");
    System.exit(0);
  }
}
