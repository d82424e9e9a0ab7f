/// A reader of the pickles that `torch.save` writes for a state dict, and of nothing else.
///
/// A pickle is a program for a stack machine that can call any Python function. This reader runs the few opcodes that state dicts consist of
/// (https://github.com/python/cpython/blob/main/Lib/pickletools.py), and knows three callables by name: an ordered dictionary, a tensor on a
/// storage, a storage. Anything else is an error, so a file can describe tensors and do nothing more.
///
/// Containers are in arrays and values refer to them by index, so a dictionary that holds itself is harmless, and nothing is nested.
struct TorchPickle {
    /// Bytes that tensors are views of.
    struct Storage: Equatable {
        let key: String
        let type: ElementType
        /// Elements.
        let count: Int
    }

    /// A tensor as the pickle describes it; nothing of it has been checked against the file.
    struct TensorView: Equatable {
        let storage: Storage
        /// Elements of the storage before the first one.
        let offset: Int
        let shape: [Int]
        let strides: [Int]
    }

    enum Value: Equatable {
        case none
        case bool(Bool)
        case integer(Int)
        case text(String)
        case callable(Callable)
        case tuple(Int)
        case list(Int)
        case dictionary(Int)
        case storage(Storage)
        case tensor(TensorView)
    }

    /// The Python objects that may be named.
    enum Callable: Equatable {
        case orderedDict
        case rebuildTensor
        case storageType(ElementType)

        init?(module: String, name: String) {
            switch (module, name) {
            case ("collections", "OrderedDict"): self = .orderedDict
            case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensor
            case ("torch", _):
                guard let type = Callable.storages[name] else { return nil }
                self = .storageType(type)
            default: return nil
            }
        }

        private static let storages: [String: ElementType] = [
            "FloatStorage": .f32, "HalfStorage": .f16, "BFloat16Storage": .bf16, "DoubleStorage": .f64, "LongStorage": .i64,
            "IntStorage": .i32, "ShortStorage": .i16, "CharStorage": .i8, "ByteStorage": .u8, "BoolStorage": .bool,
        ]
    }

    /// State dicts of the largest published models take a tenth of these.
    static let (operationLimit, textLimit) = (1 << 22, 1 << 12)

    private(set) var tuples: [[Value]] = []
    private(set) var lists: [[Value]] = []
    private(set) var dictionaries: [[(key: Value, value: Value)]] = []
    /// Where the next pickle of a file that holds several begins.
    private(set) var position: Int

    private let bytes: UnsafeRawBufferPointer
    private let file: String
    private var stack: [Value] = []
    private var marks: [Int] = []
    private var memo: [UInt32: Value] = [:]
    private var operations = 0

    /// - Parameters:
    ///   - bytes: memory with the pickle; it must outlive this value.
    ///   - position: where it begins.
    init(_ bytes: UnsafeRawBufferPointer, at position: Int, file: String) {
        (self.bytes, self.position, self.file) = (bytes, position, file)
    }

    /// Runs the pickle at ``position``, moves ``position`` after it and returns its result.
    /// - Throws: ``CheckpointError``
    mutating func read() throws -> Value {
        (stack, marks, memo) = ([], [], [:])
        while true {
            operations += 1
            guard operations <= Self.operationLimit else { throw malformed("more than \(Self.operationLimit) operations in its pickle") }
            let start = position
            let operation = try byte()
            if operation == UInt8(ascii: ".") {
                guard stack.count == 1, marks.isEmpty, let value = stack.last else { throw malformed("its pickle ends with \(stack.count) values") }
                return value
            }
            guard try run(operation) else {
                throw CheckpointError.unsupported(
                    what: "the pickle operation 0x\(String(operation, radix: 16)) at byte \(start)", file: file,
                    hint: "expected a state dict of tensors as torch.save writes it")
            }
        }
    }

    // MARK: - Operations

    /// - Returns: `false` for an operation that state dicts do not have.
    private mutating func run(_ operation: UInt8) throws -> Bool {
        switch operation {
        case 0x80:  // PROTO
            let version = try byte()
            guard version == 2 else {
                throw CheckpointError.unsupported(what: "pickle protocol \(version)", file: file, hint: "torch.save writes protocol 2")
            }
        case UInt8(ascii: "N"): stack.append(.none)
        case 0x88: stack.append(.bool(true))
        case 0x89: stack.append(.bool(false))
        case UInt8(ascii: "K"): stack.append(.integer(Int(try byte())))
        case UInt8(ascii: "M"): stack.append(.integer(Int(try number(UInt16.self))))
        case UInt8(ascii: "J"): stack.append(.integer(Int(try number(Int32.self))))
        case 0x8A: stack.append(.integer(try longInteger()))
        case UInt8(ascii: "X"): stack.append(.text(try text(count: Int(try number(UInt32.self)))))
        case UInt8(ascii: "c"): stack.append(.callable(try callable()))
        case UInt8(ascii: "("): marks.append(stack.count)
        case UInt8(ascii: ")"): push(tuple: [])
        case 0x85, 0x86, 0x87: push(tuple: try pop(Int(operation) - 0x84))  // TUPLE1 to TUPLE3
        case UInt8(ascii: "t"): push(tuple: try popToMark())
        case UInt8(ascii: "]"):
            lists.append([])
            stack.append(.list(lists.count - 1))
        case UInt8(ascii: "}"): pushDictionary()
        case UInt8(ascii: "a"): try append(try pop(1))
        case UInt8(ascii: "e"): try append(try popToMark())
        case UInt8(ascii: "s"): try set(try pop(2))
        case UInt8(ascii: "u"): try set(try popToMark())
        case UInt8(ascii: "q"): memo[UInt32(try byte())] = try top()
        case UInt8(ascii: "r"): memo[try number(UInt32.self)] = try top()
        case UInt8(ascii: "h"): stack.append(try recall(UInt32(try byte())))
        case UInt8(ascii: "j"): stack.append(try recall(try number(UInt32.self)))
        case UInt8(ascii: "Q"): try makeStorage()
        case UInt8(ascii: "R"): try reduce()
        case UInt8(ascii: "b"):
            // A state dict's own attributes (`_metadata`: the versions of its modules), which say nothing about the tensors.
            _ = try pop(1)
            guard case .dictionary = try top() else { throw malformed("its pickle sets attributes of something that is no dictionary") }
        default: return false
        }
        return true
    }

    private mutating func push(tuple values: [Value]) {
        tuples.append(values)
        stack.append(.tuple(tuples.count - 1))
    }

    private mutating func pushDictionary() {
        dictionaries.append([])
        stack.append(.dictionary(dictionaries.count - 1))
    }

    private mutating func append(_ values: [Value]) throws {
        guard case .list(let index) = try top() else { throw malformed("its pickle appends to something that is no list") }
        lists[index] += values
    }

    private mutating func set(_ values: [Value]) throws {
        guard case .dictionary(let index) = try top(), values.count % 2 == 0 else {
            throw malformed("its pickle sets items of something that is no dictionary")
        }
        for pair in stride(from: 0, to: values.count, by: 2) { dictionaries[index].append((values[pair], values[pair + 1])) }
    }

    /// `('storage', torch.FloatStorage, key, device, elements)`, in the older format followed by a view of a larger storage.
    private mutating func makeStorage() throws {
        guard case .tuple(let index) = try pop(1).first, (5...6).contains(tuples[index].count), tuples[index][0] == .text("storage"),
            case .callable(.storageType(let type)) = tuples[index][1], case .text(let key) = tuples[index][2],
            case .integer(let count) = tuples[index][4], count >= 0
        else { throw malformed("its pickle refers to something that is no storage") }
        if tuples[index].count == 6, tuples[index][5] != .none {
            throw CheckpointError.unsupported(what: "a view of a storage (PyTorch before 0.4)", file: file, hint: "save it again with a newer PyTorch")
        }
        stack.append(.storage(Storage(key: key, type: type, count: count)))
    }

    private mutating func reduce() throws {
        let pair = try pop(2)
        guard case .callable(let callable) = pair[0], case .tuple(let index) = pair[1] else {
            throw malformed("its pickle calls something that cannot be called")
        }
        let arguments = tuples[index]
        switch callable {
        case .orderedDict where arguments.isEmpty: pushDictionary()
        case .rebuildTensor:
            guard arguments.count >= 4, case .storage(let storage) = arguments[0], case .integer(let offset) = arguments[1],
                let shape = integers(arguments[2]), let strides = integers(arguments[3])
            else { throw malformed("its pickle makes a tensor of something else than a storage, an offset, a shape and strides") }
            stack.append(.tensor(TensorView(storage: storage, offset: offset, shape: shape, strides: strides)))
        default: throw malformed("its pickle calls something with arguments that it does not take")
        }
    }

    private func integers(_ value: Value) -> [Int]? {
        guard case .tuple(let index) = value, tuples[index].count <= 16 else { return nil }
        let numbers = tuples[index].compactMap { if case .integer(let number) = $0 { number } else { nil } }
        return numbers.count == tuples[index].count ? numbers : nil
    }

    // MARK: - Stack and memo

    private func top() throws -> Value {
        guard let value = stack.last, stack.count > marks.last ?? 0 else { throw malformed("its pickle takes from an empty stack") }
        return value
    }

    private mutating func pop(_ count: Int) throws -> [Value] {
        guard stack.count - (marks.last ?? 0) >= count else { throw malformed("its pickle takes from an empty stack") }
        defer { stack.removeLast(count) }
        return Array(stack.suffix(count))
    }

    private mutating func popToMark() throws -> [Value] {
        guard let mark = marks.popLast() else { throw malformed("its pickle has no mark to go back to") }
        defer { stack.removeSubrange(mark...) }
        return Array(stack[mark...])
    }

    private func recall(_ index: UInt32) throws -> Value {
        guard let value = memo[index] else { throw malformed("its pickle asks for value \(index), which it never kept") }
        return value
    }

    // MARK: - Bytes

    private mutating func byte() throws -> UInt8 { try number(UInt8.self) }

    private mutating func number<Number: FixedWidthInteger>(_: Number.Type) throws -> Number {
        let field = try take(MemoryLayout<Number>.size)
        return Number(littleEndian: field.loadUnaligned(as: Number.self))
    }

    /// LONG1: a two's complement of up to 255 bytes; no more than eight fit a size.
    private mutating func longInteger() throws -> Int {
        let field = try take(Int(try byte()))
        guard field.count <= 8 else { throw malformed("a number of \(field.count) bytes in its pickle") }
        var value: Int64 = field.last.map { $0 >= 0x80 ? -1 : 0 } ?? 0
        for byte in field.reversed() { value = value << 8 | Int64(byte) }
        return Int(value)
    }

    private mutating func text(count: Int) throws -> String {
        guard count <= Self.textLimit else { throw malformed("a text of \(count) bytes in its pickle, expected at most \(Self.textLimit)") }
        let field = try take(count)
        guard firstInvalidUTF8(in: field) == nil else { throw malformed("a text in its pickle that is not UTF-8") }
        return String(decoding: field, as: UTF8.self)
    }

    /// GLOBAL: module and name, each up to the end of its line.
    private mutating func callable() throws -> Callable {
        let (module, name) = (try line(), try line())
        guard let callable = Callable(module: module, name: name) else {
            throw CheckpointError.unsupported(
                what: "the Python object \(quoted("\(module).\(name)")) in a pickle", file: file,
                hint: "expected a state dict of tensors; save model.state_dict() instead of the model")
        }
        return callable
    }

    private mutating func line() throws -> String {
        let rest = bytes[position...].prefix(256)
        guard let end = rest.firstIndex(of: UInt8(ascii: "\n")) else { throw malformed("a name without an end in its pickle") }
        defer { position = end + 1 }
        return String(decoding: bytes[position..<end], as: UTF8.self)
    }

    private mutating func take(_ count: Int) throws -> UnsafeRawBufferPointer {
        guard count <= bytes.count - position else { throw malformed("its pickle is cut off at byte \(bytes.count)") }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])
    }

    private func malformed(_ reason: String) -> CheckpointError { .malformed(file: file, reason: reason) }
}
