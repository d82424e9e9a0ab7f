import AdaLLaVA
import Foundation
import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle

/// An HTTP server in front of one model, in the forms that OpenAI's clients speak.
///
///     var options = ServerOptions()
///     options.port = 8080
///     let server = try ModelServer(options, logger: Logger(label: "adallava")) { try await AdaptiveModel(contentsOf: url) }
///     try await server.run()      // until SIGTERM or SIGINT; answers under way are given first
///
/// It listens while the model is still being loaded; `/health` says when it is ready.
public struct ModelServer: Sendable {
    let options: ServerOptions
    let state: ServerState
    let media: MediaLoader
    let admission: Admission
    let metrics = Metrics()
    let grammars = Grammars()
    let files = FileStore()
    let batches = BatchStore()
    let logger: Logger
    private let load: @Sendable () async throws -> AdaptiveModel
    private let onRunning: @Sendable (_ port: Int) async -> Void
    private let onReady: @Sendable (_ model: String) async -> Void

    /// - Parameters:
    ///   - onRunning: called with the port once the server listens.
    ///   - onReady: called with the model's name once it answers requests for the first time.
    ///   - load: loads the model.
    /// - Throws: ``ServerError`` for an address that others reach without keys.
    public init(
        _ options: ServerOptions, logger: Logger, onRunning: @escaping @Sendable (_ port: Int) async -> Void = { _ in },
        onReady: @escaping @Sendable (_ model: String) async -> Void = { _ in },
        load: @escaping @Sendable () async throws -> AdaptiveModel
    ) throws {
        if !options.isLoopback, options.keys.isEmpty, !options.allowsAnyone { throw ServerError.unprotected(host: options.host) }
        (self.options, self.logger, self.load, self.onRunning, self.onReady) = (options, logger, load, onRunning, onReady)
        media = MediaLoader(folder: options.mediaFolder, hosts: options.mediaHosts, maxBytes: options.maxBodyBytes)
        let state = ServerState(), admission = Admission(
            limit: options.maxConcurrent, waitingLimit: options.maxWaiting, longestWait: options.maxWait, outlook: { state.model?.outlook })
        (self.state, self.admission) = (state, admission)
    }

    /// The server as a service of a group.
    public func application() -> some ApplicationProtocol {
        var services: [any Service] = [ModelService(server: self)]
        if let limit = options.idleUnload { services.append(IdleService(state: state, admission: admission, limit: limit)) }
        return Application(
            router: router(), server: .http1(configuration: .init(idleTimeout: .seconds(75))),
            configuration: ApplicationConfiguration(
                address: .hostname(options.host, port: options.port), serverName: nil, availableConnectionsDelegate: .maximum(1024, logger: logger)),
            services: services,
            onServerRunning: { [onRunning] channel in await onRunning(channel.localAddress?.port ?? 0) }, logger: logger)
    }

    /// A model in `/v1/models`.
    func describe(_ model: AdaptiveModel) -> ModelDescription {
        ModelDescription(id: modelName(model), created: Int(state.started.timeIntervalSince1970), model)
    }

    /// Loads the model for the first time.
    fileprivate func start() async throws {
        let model = try await cancelWhenGracefulShutdown { try await loadModel() }
        state.setReady(model, describe(model)) { try await loadModel() }
        await onReady(modelName(model))
    }

    /// Loads the model, and lets budgets shrink under load.
    private func loadModel() async throws -> AdaptiveModel {
        let model = try await load()
        if let patience = options.maxWait { try await model.balance(patience: patience) { [admission] in admission.backlog } }
        return model
    }

    /// Serves until SIGTERM or SIGINT.
    /// - Throws: errors of loading, and the system's error for an address that cannot be bound.
    public func run() async throws {
        var configuration = ServiceGroupConfiguration(
            services: [application(), DrainService(state: state, batches: batches)], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        configuration.maximumGracefulShutdownDuration = options.drainTimeout
        do {
            try await ServiceGroup(configuration: configuration).run()
        } catch let error as IOError {
            throw ServerError.address(host: options.host, port: options.port, reason: String(cString: strerror(error.errnoCode)))
        }
    }
}

/// Why a server does not start.
public enum ServerError: AdaLLaVAError, Equatable {
    /// An address that other machines reach, and no key.
    case unprotected(host: String)
    /// An address that cannot be bound.
    case address(host: String, port: Int, reason: String)
    /// A file of keys without one.
    case noKeys(file: String)

    public var category: ErrorCategory {
        switch self {
        case .unprotected: .usage
        case .address: .inputOutput
        case .noKeys: .badData
        }
    }

    public var description: String {
        switch self {
        case .unprotected(let host):
            "--host \(host): other machines reach this address; expected --api-key-file FILE, or --no-auth to answer everybody who does"
        case .address(let host, let port, let reason): "cannot listen on \(host), port \(port): \(reason)"
        case .noKeys(let file): "\(file): expected one key on each line, found none"
        }
    }
}

/// Loads the model while the server already listens.
private struct ModelService: Service {
    let server: ModelServer

    func run() async throws {
        do {
            try await server.start()
        } catch is CancellationError {
            return
        }
        try? await gracefulShutdown()
    }
}

/// Unloads the model when it was not used for a while.
private struct IdleService: Service {
    let state: ServerState
    let admission: Admission
    let limit: Duration

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while (try? await Task.sleep(for: max(limit / 8, .milliseconds(10)))) != nil {
                if admission.counts.running + admission.counts.waiting > 0 { state.noteUse() }
                state.unload(after: limit)
            }
        }
    }
}

/// Notified first when the server shuts down.
private struct DrainService: Service {
    let state: ServerState
    let batches: BatchStore

    func run() async throws {
        try? await gracefulShutdown()
        state.setDraining()
        // No client waits for them, and results in memory are lost with the process.
        batches.cancelAll()
    }
}

/// A request's context, with its connection.
struct ServerContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel
    /// Identity of the client: the digest of its key; empty without keys.
    var client = ""

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}
