import AdaLLaVA
import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// A run's folder: `settings.json`, written first, and `answers.jsonl`, one line for each answered sample and budget.
///
/// Lines are appended whole and flushed to the disk, so a killed run loses at most the line that it was writing; an incomplete line is removed
/// when the run resumes. A lock prevents two processes from writing to one folder.
package final class AnswerLog {
    package let folder: URL
    /// Budgets of the whole run: the new ones are appended to the earlier ones.
    package let settings: EvaluationSettings
    /// Answers of earlier starts of this run, in the order in which they were written.
    package let earlier: [SampleRecord]
    private let descriptor: Int32

    private static let settingsName = "settings.json"
    private static let answersName = "answers.jsonl"

    /// Starts a run in `folder`, or resumes the one that is there; new budgets are added to it.
    /// - Throws: ``EvaluationError/otherRun(folder:setting:expected:found:)``, ``EvaluationError/inUse(folder:)``,
    ///   ``EvaluationError/data(file:at:expected:found:)`` for a damaged line, ``EvaluationError/file(path:reason:)``
    package init(folder: URL, settings: EvaluationSettings) throws {
        do {
            try Files.createFolder(folder)
        } catch {
            throw EvaluationError.file(path: folder.path, reason: "cannot be made: \(error.localizedDescription)")
        }
        let file = folder.appendingPathComponent(AnswerLog.answersName)
        let opened = Files.open(file.path, O_RDWR | O_CREAT | O_APPEND)
        guard opened >= 0 else { throw AnswerLog.failure(file) }
        do {
            guard flock(opened, LOCK_EX | LOCK_NB) == 0 else {
                throw errno == EWOULDBLOCK ? EvaluationError.inUse(folder: folder.path) : AnswerLog.failure(file)
            }
            if let found = try AnswerLog.settings(in: folder) {
                let joined = settings.joining(found)
                if let difference = joined.difference(from: found, ignoringBudgets: true) {
                    throw EvaluationError.otherRun(
                        folder: folder.path, setting: difference.name, expected: difference.expected, found: difference.found)
                }
                if joined != found { try RunFiles.write(try RunFiles.encode(joined), to: folder.appendingPathComponent(AnswerLog.settingsName)) }
                self.settings = joined
            } else {
                // Settings are written before the first answer, so answers without settings belong to something else.
                guard lseek(opened, 0, SEEK_END) == 0 else {
                    throw EvaluationError.file(path: file.path, reason: "answers without \(AnswerLog.settingsName); name another --output")
                }
                try RunFiles.write(try RunFiles.encode(settings), to: folder.appendingPathComponent(AnswerLog.settingsName))
                self.settings = settings
            }
            let (records, length) = try AnswerLog.records(in: file)
            guard ftruncate(opened, off_t(length)) == 0 else { throw AnswerLog.failure(file) }
            earlier = records
        } catch {
            close(opened)
            throw error
        }
        descriptor = opened
        self.folder = folder
    }

    deinit { close(descriptor) }

    /// Appends one line and makes it durable.
    /// - Throws: ``EvaluationError/file(path:reason:)`` if the disk is full or fails.
    package func append(_ record: SampleRecord) throws {
        let file = folder.appendingPathComponent(AnswerLog.answersName)
        let line = try RunFiles.encode(record, isPretty: false)
        let bytes = [UInt8](line) + [UInt8(ascii: "\n")]
        var done = 0
        while done < bytes.count {
            let written = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done) }
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { throw AnswerLog.failure(file) }
            done += written
        }
        guard fsync(descriptor) == 0 else { throw AnswerLog.failure(file) }
    }

    // MARK: - Reading

    /// The settings of the run in `folder`; `nil` if there is none.
    static func settings(in folder: URL) throws -> EvaluationSettings? {
        let file = folder.appendingPathComponent(settingsName)
        guard Files.exists(file) else { return nil }
        do {
            return try JSONDecoder().decode(EvaluationSettings.self, from: Files.data(file))
        } catch {
            throw EvaluationError.data(file: file.path, at: "the whole file", expected: "a run's settings", found: "\(error)")
        }
    }

    /// A finished or interrupted run, without touching it.
    static func read(folder: URL) throws -> (settings: EvaluationSettings, records: [SampleRecord]) {
        guard let settings = try settings(in: folder) else {
            throw EvaluationError.missing(file: folder.appendingPathComponent(settingsName).path, needed: "an evaluation's output folder")
        }
        return (settings, try records(in: folder.appendingPathComponent(answersName)).records)
    }

    /// The complete lines of a log, and how many bytes they take; a last line without its end does not count.
    private static func records(in file: URL) throws -> (records: [SampleRecord], length: Int) {
        let data: Data
        do {
            data = try Files.data(file)
        } catch {
            throw EvaluationError.file(path: file.path, reason: "cannot be read: \(error.localizedDescription)")
        }
        let newline = UInt8(ascii: "\n")
        let length = data.lastIndex(of: newline).map { $0 + 1 } ?? 0
        let decoder = JSONDecoder()
        var seen = Set<SampleRecord.Key>()
        var records: [SampleRecord] = []
        for (number, line) in data[..<length].split(separator: newline, omittingEmptySubsequences: true).enumerated() {
            guard let record = try? decoder.decode(SampleRecord.self, from: line) else {
                throw EvaluationError.data(
                    file: file.path, at: "line \(number + 1)", expected: "an answered sample",
                    found: "\"\(String(decoding: line.prefix(80), as: UTF8.self))\"; remove the line to answer its sample again")
            }
            guard seen.insert(record.key).inserted else {
                throw EvaluationError.data(
                    file: file.path, at: "line \(number + 1)", expected: "each sample once for each budget",
                    found: "\(record.id) at budget \(record.budget) again")
            }
            records.append(record)
        }
        return (records, length)
    }

    private static func failure(_ file: URL) -> EvaluationError { .file(path: file.path, reason: String(cString: strerror(errno))) }
}

/// Small files that appear whole or not at all.
enum RunFiles {
    static func encode(_ value: some Encodable, isPretty: Bool = true) throws -> Data {
        do {
            return try JSONText.data(value, isPretty: isPretty)
        } catch {
            throw EvaluationError.argument(name: "result", expected: "numbers that JSON can hold", found: "\(error)")
        }
    }

    static func write(_ data: Data, to url: URL) throws {
        do {
            try Files.write(data, to: url)
        } catch {
            throw EvaluationError.file(path: url.path, reason: "cannot be written: \(error.localizedDescription)")
        }
    }
}
