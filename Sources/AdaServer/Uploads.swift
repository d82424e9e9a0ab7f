import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// Files that clients have uploaded, and the results of their batches: kept in memory until the server ends.
final class FileStore: Sendable {
    struct File: Sendable {
        let id: String
        let client: String
        let name: String
        let purpose: String
        let created = Int(Date().timeIntervalSince1970)
        let bytes: Data
    }

    /// The most bytes that are kept.
    static let limit = 256 << 20
    private let files = Mutex<[File]>([])

    /// - Throws: ``APIError`` if there is no room.
    func add(_ bytes: Data, name: String, purpose: String, client: String) throws -> File {
        let file = File(
            id: "file-" + UUID().uuidString.replacing("-", with: "").lowercased(), client: client, name: name, purpose: purpose, bytes: bytes)
        try files.withLock { files in
            guard files.count < 10_000, files.reduce(bytes.count, { $0 + $1.bytes.count }) <= Self.limit else {
                throw APIError(.init(code: 507, reasonPhrase: "Insufficient Storage"), "there is no room for this file beside those that are kept; delete some", code: "storage_full")
            }
            files.append(file)
        }
        return file
    }

    func all(of client: String) -> [File] { files.withLock { $0.filter { $0.client == client } } }

    /// - Throws: ``APIError`` for a file that is not there, or another client's.
    func find(_ id: String, _ client: String) throws -> File {
        guard let file = files.withLock({ $0.first { $0.id == id && $0.client == client } }) else {
            throw APIError(.notFound, "there is no file \(id.prefix(80))", parameter: "file_id", code: "file_not_found")
        }
        return file
    }

    func remove(_ id: String, _ client: String) throws {
        _ = try find(id, client)
        files.withLock { $0.removeAll { $0.id == id } }
    }
}

/// A file in OpenAI's form.
struct FileObject: Encodable {
    let id: String
    let object = "file"
    let bytes: Int
    let createdAt: Int
    let filename: String
    let purpose: String
    let status = "processed"

    init(_ file: FileStore.File) {
        (id, bytes, createdAt, filename, purpose) = (file.id, file.bytes.count, file.created, file.name, file.purpose)
    }
}

/// A list in OpenAI's form.
struct ObjectList<Item: Encodable>: Encodable {
    let object = "list"
    let data: [Item]
    let hasMore = false
}

extension ModelServer {
    func addFileRoutes(to router: Router<ServerContext>) {
        router.post("/v1/files") { request, context in
            var request = request
            let type = request.headers[.contentType] ?? ""
            let form = try MultipartForm(try await collect(&request, context), contentType: type)
            guard let file = form.parts["file"] else { throw APIError.parameter("file", expected: "a file", found: "none") }
            let purpose = form.parts["purpose"].map { String(decoding: $0.bytes, as: UTF8.self) } ?? ""
            guard purpose == "batch" else { throw APIError.parameter("purpose", expected: "batch", found: "\"\(purpose.prefix(40))\"") }
            return try JSONBody.response(FileObject(try files.add(file.bytes, name: file.filename ?? "batch.jsonl", purpose: purpose, client: context.client)))
        }
        router.get("/v1/files") { _, context in try JSONBody.response(ObjectList(data: files.all(of: context.client).map(FileObject.init))) }
        router.get("/v1/files/:id") { _, context in try JSONBody.response(FileObject(try files.find(context.parameters.require("id"), context.client))) }
        router.get("/v1/files/:id/content") { _, context in
            let file = try files.find(context.parameters.require("id"), context.client)
            return Response(status: .ok, headers: [.contentType: "application/jsonl"], body: ResponseBody(byteBuffer: ByteBuffer(bytes: file.bytes)))
        }
        router.delete("/v1/files/:id") { _, context in
            let id = try context.parameters.require("id")
            try files.remove(id, context.client)
            return try JSONBody.response(DeletedObject(id: id))
        }
    }
}

struct DeletedObject: Encodable {
    let id: String
    let object = "file"
    let deleted = true
}

/// A form with files (RFC 7578).
struct MultipartForm {
    struct Part {
        let filename: String?
        let bytes: Data
    }

    private(set) var parts: [String: Part] = [:]

    /// - Throws: ``APIError``
    init(_ body: ByteBuffer, contentType: String) throws {
        let wrong = APIError(.badRequest, "expected the body to be multipart/form-data with the parts file and purpose", code: "invalid_form")
        let fields = Self.parameters(contentType)
        guard fields.value.lowercased() == "multipart/form-data", let boundary = fields.parameters["boundary"], !boundary.isEmpty, boundary.utf8.count <= 70 else { throw wrong }
        let data = Data(body.readableBytesView), mark = Data("--\(boundary)".utf8), lineBreak = Data("\r\n".utf8)
        guard var position = data.range(of: mark)?.upperBound else { throw wrong }
        while true {
            if data[position...].starts(with: Data("--".utf8)) { return }
            guard data[position...].starts(with: lineBreak), let headEnd = data.range(of: Data("\r\n\r\n".utf8), in: position ..< data.endIndex),
                let end = data.range(of: lineBreak + mark, in: headEnd.upperBound - 2 ..< data.endIndex), parts.count < 16
            else { throw wrong }
            let head = String(decoding: data[position ..< headEnd.lowerBound], as: UTF8.self)
            for line in head.components(separatedBy: "\r\n") where line.lowercased().hasPrefix("content-disposition:") {
                let disposition = Self.parameters(String(line.dropFirst("content-disposition:".count)))
                guard let name = disposition.parameters["name"], parts[name] == nil else { throw wrong }
                let content = end.lowerBound > headEnd.upperBound ? Data(data[headEnd.upperBound ..< end.lowerBound]) : Data()
                parts[name] = Part(filename: disposition.parameters["filename"].map { String($0.prefix(200)) }, bytes: content)
            }
            position = end.upperBound
        }
    }

    /// `value; name=text; other="text"`
    private static func parameters(_ text: String) -> (value: String, parameters: [String: String]) {
        let items = text.split(separator: ";").map { $0.trimmingCharacters(in: .whitespaces) }
        var parameters: [String: String] = [:]
        for item in items.dropFirst() {
            let parts = item.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { continue }
            var value = parts[1]
            if value.count >= 2, value.hasPrefix("\""), value.hasSuffix("\"") { value = String(value.dropFirst().dropLast()) }
            parameters[parts[0].lowercased()] = value
        }
        return (items.first ?? "", parameters)
    }
}
