import Foundation

/// How a server is run.
public struct ServerOptions: Sendable {
    /// The address to listen on. Only loopback addresses are served without ``keys`` unless ``allowsAnyone`` is set.
    public var host = "127.0.0.1"
    /// The port; 0 takes any free one.
    public var port = 8080
    /// Accepted keys; every request must carry one. Empty: no key is required.
    public var keys: [String] = []
    /// Whether an address beyond loopback is served without keys.
    public var allowsAnyone = false
    /// The folder whose files `file:` URLs may name; `nil` refuses them all.
    public var mediaFolder: URL?
    /// Hosts, `HOST` or `HOST:PORT`, that images are fetched from.
    public var mediaHosts: [String] = []
    /// Maximum number of concurrent answers, and of waiting requests; further ones are refused with 429.
    public var maxConcurrent = 32, maxWaiting = 128
    /// The time in which requests without a deadline are to be answered: budgets shrink towards the floor when requests need more, and those that would wait
    /// longer even so are refused with 429. `nil`: budgets never shrink, and no request is refused for time.
    public var maxWait: Duration? = .seconds(30)
    /// The time without a request after which the model is unloaded; the next request loads it again. `nil`: never.
    public var idleUnload: Duration?
    /// The most bytes of a request's body.
    public var maxBodyBytes = 64 << 20
    /// The longest time in which a body has to arrive.
    public var bodyTimeout = Duration.seconds(60)
    /// The longest time that a client may leave a part of its answer unread.
    public var readTimeout = Duration.seconds(30)
    /// The time after which a silent stream sends a comment, so that no proxy closes it.
    public var keepAlive = Duration.seconds(10)
    /// The longest time that answers under way may take once the server is to end.
    public var drainTimeout = Duration.seconds(30)
    /// The model's name in requests and answers; `nil`: the checkpoint's.
    public var modelName: String?
    /// The version that `/version` reports.
    public var version = "0"

    /// Loopback, port 8080, no keys.
    public init() {}

    /// Whether only programs of this machine reach the address.
    public var isLoopback: Bool { Self.isLoopback(host: host) }

    /// Whether a host's name is this machine's own whatever a name server says.
    static func isLoopback(host: String) -> Bool {
        ["localhost", "::1", "[::1]"].contains(host.lowercased()) || host.wholeMatch(of: /127\.\d{1,3}\.\d{1,3}\.\d{1,3}/) != nil
    }
}
