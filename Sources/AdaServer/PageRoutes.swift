import HTTPTypes
import Hummingbird

/// The page at `/` and its parts, which are in the executable.
enum Page {
    static func add(to router: Router<ServerContext>) {
        let parts: [(path: RouterPath, type: String, bytes: [UInt8])] = [
            ("/", "text/html", PackageResources.page_html), ("/page.css", "text/css", PackageResources.page_css),
            ("/page.js", "text/javascript", PackageResources.page_js),
        ]
        for part in parts {
            router.get(part.path) { _, _ in
                Response(
                    status: .ok,
                    headers: [
                        .contentType: part.type + "; charset=utf-8", .cacheControl: "no-cache", .contentSecurityPolicy: policy, .referrerPolicy: "no-referrer",
                        .xContentTypeOptions: "nosniff",
                    ], body: ResponseBody(byteBuffer: ByteBuffer(bytes: part.bytes)))
            }
        }
    }

    /// Content policy: only the page's own files and server, and images that the user chooses.
    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
}

extension HTTPField.Name {
    static let referrerPolicy = HTTPField.Name("referrer-policy")!
}
