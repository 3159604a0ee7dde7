import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.concurrent.Executors;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;

/**
 * A service on the JVM that reads files when it is asked to, over HTTP: /file?PATH?OFFSET?LENGTH answers bytes of a file, /jar?PATH how many
 * bytes the entries of a jar have, whose sums the JVM checks. Status 500 comes with the fault. Says "PORT number" when it listens.
 */
public class FileService {
    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 16);
        server.createContext("/file", exchange -> answer(exchange, FileService::readFile));
        server.createContext("/jar", exchange -> answer(exchange, FileService::readJar));
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        System.out.println("PORT " + server.getAddress().getPort());
        System.out.flush();
    }

    private interface Reader {
        byte[] read(String[] words) throws IOException;
    }

    private static void answer(HttpExchange exchange, Reader reader) throws IOException {
        int status = 200;
        byte[] body;
        try {
            body = reader.read(exchange.getRequestURI().getQuery().split("\\?"));
        } catch (Throwable fault) {
            var text = new StringWriter();
            fault.printStackTrace(new PrintWriter(text));
            status = 500;
            body = text.toString().getBytes();
        }
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private static byte[] readFile(String[] words) throws IOException {
        var buffer = ByteBuffer.allocate(Integer.parseInt(words[2]));
        long offset = Long.parseLong(words[1]);
        try (var channel = FileChannel.open(Path.of(words[0]))) {
            // One call: whoever asks has to see a read that is short.
            channel.read(buffer, offset);
        }
        return java.util.Arrays.copyOf(buffer.array(), buffer.position());
    }

    private static byte[] readJar(String[] words) throws IOException {
        long size = 0;
        try (var jar = new JarFile(words[0])) {
            for (var entries = jar.entries(); entries.hasMoreElements();) {
                JarEntry entry = entries.nextElement();
                try (InputStream input = jar.getInputStream(entry)) {
                    size += input.readAllBytes().length;
                }
            }
        }
        return Long.toString(size).getBytes();
    }
}
