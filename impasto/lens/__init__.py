"""The lens: what each unit of a ConvNet looks for. Each file is one published method."""
