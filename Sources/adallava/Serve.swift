import AdaLLaVA
import AdaServer
import ArgumentParser
import Foundation
import Logging

struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer over HTTP, with OpenAI's API.",
        discussion: """
            adallava serve -m scenes/L --port 8080
            adallava serve -m scenes/L --host 0.0.0.0 --api-key-file keys.txt
            Without --host only programs on this machine can connect. Ctrl-C and SIGTERM end the server after the running answers.
            """)

    @OptionGroup var model: ModelFlags

    @Option(help: "The address to listen on. Addresses that other machines can reach need --api-key-file or --no-auth.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on; 0 takes any free one.")
    var port = 8080

    @Option(help: "A file with one key per line; requests send one as Authorization: Bearer KEY.", completion: .file())
    var apiKeyFile: String?

    @Flag(help: "Answer requests without a key.")
    var noAuth = false

    @Option(help: "A folder whose files requests may name as images (file:///photo.jpg).", completion: .directory)
    var allowMediaDir: String?

    @Option(help: "A host, HOST or HOST:PORT, that images are fetched from; may be given several times. Private addresses are refused unless given as addresses.")
    var allowMediaHost: [String] = []

    @Option(help: "Maximum number of answers computed at once; others wait.")
    var maxConcurrent = 32

    @Option(help: "Maximum number of waiting requests; further ones are refused with 429.")
    var maxWaiting = 128

    @Option(help: "Maximum size of a request's body.")
    var maxBody = ByteSize(bytes: 64 << 20)

    @Option(help: "Maximum memory of keys and values, a quarter of it for the prompt cache; by default nine tenths of the free memory.")
    var memoryLimit: ByteSize?

    @Option(help: "The time in which requests without a deadline are to be answered, such as 30s: budgets shrink when more is asked for, and requests that would wait longer even so are refused with 429. 0 switches both off.")
    var maxWait = TimeSpan(.seconds(30))

    @Option(help: "Unload the model after so long without a request, such as 10m; the next one loads it again.")
    var idleUnload: TimeSpan?

    @Option(help: "The model's name in requests and answers, instead of the checkpoint's.")
    var servedModelName: String?

    @OptionGroup var drafts: SpeculationFlag

    func validate() throws {
        guard (0 ... 65_535).contains(port) else { throw ValidationError("--port: expected 0 to 65535, found \(port)") }
        guard (1 ... 1024).contains(maxConcurrent) else { throw ValidationError("--max-concurrent: expected 1 to 1024, found \(maxConcurrent)") }
        guard (0 ... 100_000).contains(maxWaiting) else { throw ValidationError("--max-waiting: expected 0 to 100000, found \(maxWaiting)") }
        if let idleUnload, idleUnload.duration <= .zero { throw ValidationError("--idle-unload: expected a time above 0 such as 10m, found \(idleUnload)") }
        if noAuth, apiKeyFile != nil { throw ValidationError("--no-auth and --api-key-file: expected one of them, found both") }
    }

    func run() async throws {
        try await reporting {
            var options = ServerOptions()
            (options.host, options.port, options.allowsAnyone) = (host, port, noAuth)
            options.keys = try apiKeyFile.map(Self.keys) ?? []
            options.mediaFolder = try allowMediaDir.map(Self.folder)
            (options.maxConcurrent, options.maxWaiting, options.maxBodyBytes) = (maxConcurrent, maxWaiting, maxBody.bytes)
            options.mediaHosts = allowMediaHost
            options.maxWait = maxWait.duration > .zero ? maxWait.duration : nil
            options.idleUnload = idleUnload?.duration
            options.modelName = Self.name(of: model.model, served: servedModelName)
            options.version = Version.name.split(separator: " ").last.map(String.init) ?? Version.name
            let checkpoint = try model.open()
            var logger = Logger(label: "adallava")
            logger.logLevel = model.compute.verbose ? .info : .warning
            let server = try ModelServer(options, logger: logger, onRunning: { [options] port in
                let address = host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host
                Console.shared.message("listening on http://\(address):\(port)" + (options.keys.isEmpty && !options.isLoopback ? ", without keys" : ""))
            }, onReady: { Console.shared.message("ready: \($0)") }) { [compute = model.compute] in
                let loaded = try await compute.load(checkpoint) { options in
                    options.concurrentRequests = maxConcurrent
                    options.speculation = drafts.speculation
                    options.keyValueLimit = memoryLimit?.bytes
                    options.promptCacheLimit = memoryLimit.map { $0.bytes / 4 }
                }
                try await loaded.warmUp()
                return loaded
            }
            try await server.run()
        }
    }

    private static func keys(_ path: String) throws -> [String] {
        let url = URL(systemPath: path)
        guard Files.exists(url) else { throw CheckpointError.missing(file: path, needed: "the keys of --api-key-file") }
        guard let data = try? Files.data(url) else { throw CheckpointError.unreadable(file: path, reason: "expected a text file") }
        let keys = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
        if keys.isEmpty { throw ServerError.noKeys(file: path) }
        return keys
    }

    /// The model's name in the API: `nil` takes the checkpoint's name, because a path is a location and no name.
    static func name(of model: String?, served: String?) -> String? {
        let name = model ?? "scenes/L"
        return served ?? (Files.exists(URL(systemPath: name)) ? nil : name)
    }

    static func folder(_ path: String) throws -> URL {
        let url = URL(systemPath: path)
        guard FileKind(url) == .folder else {
            throw CheckpointError.missing(file: path, needed: "the folder of --allow-media-dir")
        }
        return url.standardizedFileURL
    }
}

/// A time as people write it: `500ms`, `30s`, `10m`, `2h`; a number alone means seconds.
struct TimeSpan: ExpressibleByArgument, CustomStringConvertible {
    let duration: Duration

    private static let units: [(String, Double)] = [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]

    init(_ duration: Duration) { self.duration = duration }

    init?(argument: String) {
        guard let (suffix, seconds) = Self.units.first(where: { argument.hasSuffix($0.0) }),
            let number = Double(argument.dropLast(suffix.count).trimmingCharacters(in: .whitespaces)), number >= 0, number * seconds < 1e9
        else { return nil }
        duration = .nanoseconds(Int64(number * seconds * 1e9))
    }

    var description: String { String(format: "%gs", duration / .seconds(1)) }
}

/// A number of bytes as people write it: `64MB`, `8GB`, `512KiB`, `1000`.
struct ByteSize: ExpressibleByArgument, CustomStringConvertible {
    let bytes: Int

    private static let units: [(String, Int)] = [
        ("gib", 1 << 30), ("mib", 1 << 20), ("kib", 1 << 10), ("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("b", 1), ("", 1),
    ]

    init(bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        let text = argument.lowercased()
        guard let (suffix, factor) = Self.units.first(where: { text.hasSuffix($0.0) }),
            let number = Double(text.dropLast(suffix.count).trimmingCharacters(in: .whitespaces)), number > 0, number * Double(factor) < 1e15
        else { return nil }
        bytes = Int(number * Double(factor))
    }

    var description: String { bytes % (1 << 20) == 0 ? "\(bytes >> 20)MB" : "\(bytes)" }
}
