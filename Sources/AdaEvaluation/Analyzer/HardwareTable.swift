import AdaLLaVA

extension Hardware {
    /// The makers' numbers that the reference calculates with. Some of the Ampere, Ada and Hopper ones count sparsity; they are kept so
    /// that results can be compared.
    package static let table: [Hardware] = [
        Hardware(name: "nvidia_V100", bandwidth: 900e9, fp16: 112e12, int8: 62e12, onChipBuffer: 20480e3),
        Hardware(name: "nvidia_A6000", bandwidth: 768e9, fp16: 154.8e12, int8: 309.7e12, onChipBuffer: 21504e3),
        Hardware(name: "nvidia_A6000_Ada", bandwidth: 960e9, fp16: 364.2e12, int8: 728.5e12, onChipBuffer: 36352e3),
        Hardware(name: "nvidia_A100", bandwidth: 1555e9, fp16: 312e12, int8: 624e12, onChipBuffer: 27648e3),
        Hardware(name: "nvidia_A100_40G", bandwidth: 1555e9, fp16: 312e12, int8: 624e12, onChipBuffer: 27648e3),
        Hardware(name: "nvidia_A100_80G", bandwidth: 2039e9, fp16: 312e12, int8: 624e12, onChipBuffer: 27648e3),
        Hardware(name: "nvidia_A800_80G_SXM", bandwidth: 2039e9, fp16: 312e12, int8: 624e12, onChipBuffer: 27648e3),
        Hardware(name: "nvidia_A40", bandwidth: 696e9, fp16: 149.7e12, int8: 299.3e12, onChipBuffer: 21504e3),
        Hardware(name: "nvidia_H100", bandwidth: 3072e9, fp16: 989.5e12, int8: 1979e12, onChipBuffer: 33792e3),
        Hardware(name: "nvidia_H100_SXM", bandwidth: 3072e9, fp16: 989.5e12, int8: 1979e12, onChipBuffer: 33792e3),
        Hardware(name: "nvidia_H100_PCIe", bandwidth: 2048e9, fp16: 756.5e12, int8: 1513e12, onChipBuffer: 29184e3),
        Hardware(name: "nvidia_L40", bandwidth: 864e9, fp16: 181e12, int8: 362e12, onChipBuffer: 36352e3),
        Hardware(name: "intel_13900k", bandwidth: 89.6e9, fp16: 1.3824e12, int8: nil, onChipBuffer: 36e6),
    ]

    package static var names: [String] { table.map(\.name) + [thisMachine] }

    /// The table's entry of this name, ignoring case.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package static func named(_ name: String) throws -> Hardware {
        if let found = table.first(where: { $0.name.lowercased() == name.lowercased() }) { return found }
        throw EvaluationError.argument(name: "--hardware", expected: "one of \(names.joined(separator: ", "))", found: String(name.prefix(80)))
    }

    /// The arithmetic type whose peak the reference uses: 8-bit integers if weights, activations and the KV cache all have at most 8 bits,
    /// else 16-bit floats.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` when no 8-bit peak is known.
    func referencePeak(_ settings: CostSettings) throws -> Double {
        guard settings.weightBits <= 8, settings.activationBits <= 8, settings.cacheBits <= 8 else { return fp16 }
        guard let int8 else {
            throw EvaluationError.argument(
                name: "--hardware \(name) with 8-bit arithmetic", expected: "hardware with a known 8-bit peak, more bits, or --formula exact",
                found: "only a 16-bit peak")
        }
        return int8
    }
}
