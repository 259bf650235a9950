"""What matchings say of SAEs: agreement of pairs and of seeds, beside what chance gives."""
