import AdaLLaVA
import Foundation
import HTTPTypes
import Hummingbird
import Synchronization

/// A batch in OpenAI's form.
struct BatchObject: Encodable, Sendable {
    struct Counts: Encodable, Sendable {
        var total = 0, completed = 0, failed = 0
    }

    struct Problem: Encodable, Sendable {
        struct Item: Encodable, Sendable {
            let code: String
            let message: String
        }

        let object = "list"
        let data: [Item]
    }

    let id: String
    let object = "batch"
    let endpoint: String
    let inputFileId: String
    let completionWindow = "24h"
    var status = "validating"
    var outputFileId = Nullable<String>(nil)
    var errorFileId = Nullable<String>(nil)
    var errors = Nullable<Problem>(nil)
    let createdAt: Int
    var inProgressAt = Nullable<Int>(nil)
    var completedAt = Nullable<Int>(nil)
    var cancelledAt = Nullable<Int>(nil)
    var failedAt = Nullable<Int>(nil)
    let expiresAt: Int
    var requestCounts = Counts()
    let metadata: Nullable<JSONValue>
}

/// Batches that are being answered, or have been.
final class BatchStore: Sendable {
    private struct Entry {
        let client: String
        var object: BatchObject
        var task: Task<Void, Never>?
    }
    private let entries = Mutex<[Entry]>([])
    private static let limit = 1000

    /// - Throws: ``APIError`` if there are too many.
    func add(_ object: BatchObject, client: String) throws {
        try entries.withLock { entries in
            if entries.count >= Self.limit, let old = entries.firstIndex(where: { $0.task == nil }) { entries.remove(at: old) }
            guard entries.count < Self.limit else { throw APIError(.tooManyRequests, "\(entries.count) batches are being answered", code: "overloaded", retryAfter: 60) }
            entries.append(Entry(client: client, object: object))
        }
    }

    func start(_ id: String, _ work: @escaping @Sendable () async -> Void) {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.object.id == id }) else { return }
            entries[index].task = Task {
                await work()
                self.entries.withLock { entries in
                    if let index = entries.firstIndex(where: { $0.object.id == id }) { entries[index].task = nil }
                }
            }
        }
    }

    func change(_ id: String, _ body: (inout BatchObject) -> Void) {
        entries.withLock { entries in
            if let index = entries.firstIndex(where: { $0.object.id == id }) { body(&entries[index].object) }
        }
    }

    func all(of client: String) -> [BatchObject] { entries.withLock { $0.filter { $0.client == client }.map(\.object) } }

    /// - Throws: ``APIError`` for a batch that is not there, or another client's.
    func find(_ id: String, _ client: String) throws -> BatchObject {
        guard let object = all(of: client).first(where: { $0.id == id }) else {
            throw APIError(.notFound, "there is no batch \(id.prefix(80))", parameter: "batch_id", code: "batch_not_found")
        }
        return object
    }

    func cancel(_ id: String) {
        entries.withLock { $0.first { $0.object.id == id }?.task }?.cancel()
    }

    func cancelAll() {
        for task in entries.withLock({ $0.compactMap(\.task) }) { task.cancel() }
    }
}

/// Results of a batch's lines as they come.
private final class BatchResults: Sendable {
    private let all = Mutex<[(line: Int, result: BatchResult)]>([])

    func add(_ result: BatchResult, line: Int) { all.withLock { $0.append((line, result)) } }

    var inOrder: [BatchResult] { all.withLock { $0.sorted { $0.line < $1.line }.map(\.result) } }
}

extension ModelServer {
    func addBatchRoutes(to router: Router<ServerContext>) {
        router.post("/v1/batches") { request, context in
            var request = request
            var fields = try JSONBody.fields(try await collect(&request, context))
            _ = try await model()
            let file = try files.find(try fields.string("input_file_id") ?? "", context.client)
            let name = try fields.string("endpoint") ?? ""
            guard let endpoint = AnswerRoute(rawValue: name) else {
                throw fields.wrong("endpoint", expected: AnswerRoute.allCases.map(\.rawValue).joined(separator: ", "), found: .string(name))
            }
            try fields.neutral("completion_window") { $0 == .string("24h") }
            let metadata = fields.take("metadata")
            try fields.expectNothingElse()
            let now = Int(Date().timeIntervalSince1970)
            let object = BatchObject(
                id: "batch_" + UUID().uuidString.replacing("-", with: "").lowercased(), endpoint: name, inputFileId: file.id, createdAt: now,
                expiresAt: now + 86_400, metadata: Nullable(metadata))
            try batches.add(object, client: context.client)
            batches.start(object.id) { await answer(object.id, file, endpoint) }
            return try JSONBody.response(object)
        }
        router.get("/v1/batches") { _, context in try JSONBody.response(ObjectList(data: batches.all(of: context.client))) }
        router.get("/v1/batches/:id") { _, context in try JSONBody.response(try batches.find(context.parameters.require("id"), context.client)) }
        router.post("/v1/batches/:id/cancel") { _, context in
            let id = try context.parameters.require("id")
            let object = try batches.find(id, context.client)
            guard ["validating", "in_progress"].contains(object.status) else {
                throw APIError(.conflict, "the batch is \(object.status)", code: "batch_ended")
            }
            batches.change(id) { $0.status = "cancelling" }
            batches.cancel(id)
            return try JSONBody.response(try batches.find(id, context.client))
        }
    }

    /// Requests of a batch have lower priority than interactive ones.
    private static let batchPriority = 1000

    private func answer(_ id: String, _ file: FileStore.File, _ endpoint: AnswerRoute) async {
        let now = { Nullable<Int>(Int(Date().timeIntervalSince1970)) }
        let results = BatchResults()
        func keep(status: String) {
            let all = results.inOrder
            func write(_ results: [BatchResult], _ name: String) -> String? {
                if results.isEmpty { return nil }
                let lines = results.compactMap { try? JSONBody.data($0) }.reduce(into: Data()) { $0 += $1 + Data("\n".utf8) }
                return try? files.add(lines, name: "\(id)_\(name).jsonl", purpose: "batch_output", client: file.client).id
            }
            let output = write(all.filter { !$0.isError }, "output"), errors = write(all.filter(\.isError), "errors")
            batches.change(id) { object in
                (object.status, object.outputFileId, object.errorFileId) = (status, Nullable(output), Nullable(errors))
                if status == "completed" { object.completedAt = now() } else { object.cancelledAt = now() }
            }
        }
        do {
            let lines = try OfflineBatch.lines(of: file.bytes, endpoint: endpoint)
            if lines.isEmpty { throw APIError(.badRequest, "the file has no requests", code: "empty_file") }
            batches.change(id) { object in
                if object.status == "validating" { object.status = "in_progress" }
                (object.inProgressAt, object.requestCounts.total) = (now(), lines.count)
            }
            let order = lines.map { (number: $0.number, line: $0.line, order: $0.line.order) }.sorted { ($0.order.group, $0.order.place) < ($1.order.group, $1.order.place) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, item) in order.enumerated() {
                    if index >= max(1, admission.limit / 2) { try await group.next() }
                    group.addTask {
                        let result = try await patiently(item.line, client: file.client)
                        results.add(result, line: item.number)
                        batches.change(id) { if result.isError { $0.requestCounts.failed += 1 } else { $0.requestCounts.completed += 1 } }
                    }
                }
                try await group.waitForAll()
            }
            keep(status: "completed")
        } catch is CancellationError {
            keep(status: "cancelled")
        } catch {
            let told = APIError(error)
            batches.change(id) { object in
                (object.status, object.failedAt) = ("failed", now())
                object.errors = Nullable(.init(data: [.init(code: told.code ?? told.type, message: told.message)]))
            }
        }
    }

    /// A line's result, also where others have taken all places for a while.
    private func patiently(_ line: BatchLine, client: String) async throws -> BatchResult {
        while true {
            let result = try await answer(line, client: client, priority: Self.batchPriority)
            guard result.response.wrappedValue?.statusCode == 429 else { return result }
            try await Task.sleep(for: .seconds(1))
        }
    }
}
