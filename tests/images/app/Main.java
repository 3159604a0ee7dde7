package org.example.invoker;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.typesafe.config.ConfigFactory;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.HttpServerCodec;
import java.io.File;
import java.io.FileNotFoundException;
import java.lang.management.ManagementFactory;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.Callable;
import org.apache.catalina.startup.Tomcat;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.http.impl.client.HttpClients;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.slf4j.LoggerFactory;

/**
 * Starts what a service on the JVM starts, says READY and ends: a logger, a configuration, its own classes, JSON, Scala, a
 * ZooKeeper, a Netty and a Tomcat that listen, HTTP clients. With the argument "heavy" it also compiles some Scala.
 */
public class Main {
    private static final int HANDLERS = 420;
    private static final long started = System.nanoTime();

    private static void say(String text) {
        System.out.printf("%6.2fs %s%n", (System.nanoTime() - started) / 1e9, text);
        System.out.flush();
    }

    private static void part(String name, Callable<?> start) {
        try {
            Object result = start.call();
            say("ok   " + name + " " + result);
        } catch (Throwable fault) {
            say("FAIL " + name + " " + fault);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path scratch = Files.createTempDirectory("inv");
        part("logback", Main::logger);
        part("config", () -> ConfigFactory.parseString("a{b=1,c=[1,2]}").resolve().root().render().length());
        part("handlers", Main::handlers);
        part("jackson", Main::json);
        part("scala", Main::scalaLibrary);
        part("zookeeper", () -> zookeeper(scratch));
        part("netty", Main::netty);
        part("tomcat", () -> tomcat(scratch));
        part("httpclient", () -> HttpClients.createDefault().getClass());
        part("curator", () -> CuratorFrameworkFactory.newClient("127.0.0.1:1", new RetryOneTime(1)).getState());
        if (arguments.length > 0 && arguments[0].equals("heavy"))
            part("scalac", () -> compileScala(scratch));
        say("READY classes=" + ManagementFactory.getClassLoadingMXBean().getTotalLoadedClassCount());
        System.exit(0);
    }

    private static Object logger() {
        LoggerFactory.getLogger(Main.class).info("starting");
        return LoggerFactory.getILoggerFactory().getClass();
    }

    private static Object handlers() throws Exception {
        int methods = 0;
        for (int i = 0; i < HANDLERS; i++) {
            Object handler = Class.forName("org.example.invoker.Handler" + i).getDeclaredConstructor().newInstance();
            methods += handler.getClass().getMethods().length;
        }
        return methods;
    }

    private static Object json() throws Exception {
        var mapper = new ObjectMapper();
        return mapper.writeValueAsString(mapper.readValue("{\"a\":[1,2,{\"b\":null}]}", Map.class));
    }

    private static Object scalaLibrary() {
        scala.collection.immutable.List<Object> list = scala.collection.immutable.List$.MODULE$.<Object>empty();
        for (int i = 0; i < 100; i++)
            list = list.$colon$colon((Object) Integer.valueOf(i));
        var map = new scala.collection.mutable.HashMap<String, String>();
        return list.toVector().size() + " " + map.size() + " " + scala.concurrent.ExecutionContext$.MODULE$.global();
    }

    private static Object zookeeper(Path scratch) throws Exception {
        var server = new ZooKeeperServer(scratch.toFile(), scratch.toFile(), 2000);
        var connections = ServerCnxnFactory.createFactory(0, 10);
        connections.startup(server);
        return connections.getLocalPort();
    }

    private static Object netty() throws Exception {
        var pipeline = new ChannelInitializer<SocketChannel>() {
            @Override
            protected void initChannel(SocketChannel channel) {
                channel.pipeline().addLast(new HttpServerCodec());
            }
        };
        var server = new ServerBootstrap()
                .group(new NioEventLoopGroup(2))
                .channel(NioServerSocketChannel.class)
                .childHandler(pipeline);
        return server.bind(0).sync().channel().localAddress();
    }

    private static Object tomcat(Path scratch) throws Exception {
        var server = new Tomcat();
        server.setBaseDir(scratch.toString());
        server.setPort(0);
        server.addContext("", scratch.toString());
        server.getConnector();
        server.start();
        int port = server.getConnector().getLocalPort();
        try {
            new URL("http://127.0.0.1:" + port + "/").openStream().close();
        } catch (FileNotFoundException answered) {
            // An empty context answers 404: it serves.
        }
        return port;
    }

    private static Object compileScala(Path scratch) throws Exception {
        File source = scratch.resolve("A.scala").toFile();
        Files.writeString(source.toPath(), "object A { case class P(x: Int, y: String);"
                + " def main(a: Array[String]): Unit = println(List(P(1, \"x\")).map(_.x).sum) }");
        scala.tools.nsc.Main.process(new String[] {"-usejavacp", "-nobootcp", "-d", scratch.toString(), source.toString()});
        return Arrays.toString(scratch.toFile().list());
    }
}
